"""Section: the fastest tiles of every Triton kernel for the shapes of the models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from data_pipelines.io.processes import process_pool
from lookupvivit.kernels import tuned
from lookupvivit.kernels.tiles import Tiles, default_tiles
from lookupvivit.profiling.gpu_report.exchange import Shape, relative_error, shapes_to_measure
from lookupvivit.profiling.gpu_report.measurement import time_call
from lookupvivit.profiling.gpu_report.resources import KERNELS, candidates_without_spills
from lookupvivit.profiling.gpu_report.state import Context, Item, Result, describe_error
from lookupvivit.profiling.gpu_report.table import extend_table
from lookupvivit.profiling.timing import synchronize

COMPILE = "compile"
MAX_ERROR = 1e-2  # of results in half precision, relative to those of the default tiles
MIN_GAIN = 0.03  # share of time below which the default stays


def items(context: Context) -> Iterator[Item]:
    """Compile all candidates at once, then time them kernel by kernel."""
    if not context.dry_run:
        yield Item(COMPILE, partial(_compile_all, context))
    for shape in shapes_to_measure(context.dry_run):
        for kernel in KERNELS:
            yield Item(f"{kernel} {shape.name}", partial(_time_candidates, context, kernel, shape))


def finish(context: Context, results: Mapping[str, Result]) -> None:
    """Write the tiles that are fastest over all shapes of a class."""
    times: dict[str, dict[str, list[dict[str, float]]]] = {}  # kernel -> class of shapes -> tiles -> seconds
    for key, result in results.items():
        if "seconds" in result and key != COMPILE:
            times.setdefault(result["kernel"], {}).setdefault(result["class"], []).append(result["seconds"])
    tiles = {
        kernel: {shapes: best for shapes, found in classes.items() if (best := _best(found, kernel)) is not None}
        for kernel, classes in times.items()
    }
    extend_table(context, {"tiles": {kernel: classes for kernel, classes in tiles.items() if classes}})


def _best(times: list[dict[str, float]], kernel: str) -> list[int] | None:
    """Tiles with the smallest mean time relative to the default; None if that is the default itself."""
    default = _text(default_tiles(kernel, 64, torch.bfloat16))
    common = set.intersection(*(set(seconds) for seconds in times))
    if default not in common:
        return None
    relative = {name: sum(seconds[name] / seconds[default] for seconds in times) / len(times) for name in common}
    best = min(relative, key=lambda name: relative[name])
    return None if relative[best] > 1 - MIN_GAIN else [int(number) for number in best.split()]


def _text(tiles: Tiles) -> str:
    return " ".join(map(str, tiles.to_list()))


def _candidates(context: Context, kernel: str) -> list[Tiles]:
    """The default first."""
    default = default_tiles(kernel, 64, torch.bfloat16)
    others = candidates_without_spills(context.capability, kernel)
    return list(dict.fromkeys([default, *others]))[: 2 if context.dry_run else None]


def _time_candidates(context: Context, kernel: str, shape: Shape) -> Result:
    inputs = shape.inputs(context.device, context.dtype)
    call = _call(kernel, inputs)
    rows, columns = (inputs[1], inputs[0]) if kernel.endswith("transposed") else (inputs[0], inputs[1])
    seconds, failed, expected = {}, {}, call()
    for tiles in _candidates(context, kernel):
        try:
            with tuned.force_tiles(tiles, kernel):
                error = max(relative_error(a, b) for a, b in zip(call(), expected, strict=True))
                if error > MAX_ERROR:
                    raise ValueError(f"relative error {error:.2g}")
                seconds[_text(tiles)] = time_call(call, context.device)
        except Exception as error:  # too much shared memory, or a compiler's error
            failed[_text(tiles)] = describe_error(error)
            synchronize(context.device)
    shapes = tuned.shape_class(rows, columns)
    return {"kernel": kernel, "shape": shape.name, "class": shapes, "seconds": seconds, "failed": failed}


def _call(kernel: str, inputs: list[torch.Tensor]) -> Callable[[], tuple[Any, ...]]:
    """A function that runs a kernel (the gradients: both sides) and returns its results."""
    from lookupvivit.kernels import triton

    q, k, v, w, g, h = inputs
    out, lse = triton.gather(q, k, v)
    d_w = triton.gather_again(q, k, lse, h)
    return {
        "gather": lambda: triton.gather(q, k, v),
        "apply": lambda: (triton.gather_again(q, k, lse, h),),
        "apply_transposed": lambda: (triton.infuse(q, k, lse, w),),
        "gradient": lambda: triton.backward(q, k, lse, (v, out, g), (w, d_w, h)),
        "gradient_transposed": lambda: triton.backward(q, k, lse, (v, out, g), (w, d_w, h)),
    }[kernel]


def _compile_all(context: Context) -> Result:
    """Fill Triton's cache on disk in several processes: one binary per kernel and tiles serves all shapes."""
    jobs = [(kernel, tiles) for kernel in KERNELS for tiles in _candidates(context, kernel)]
    workers = min(12, len(os.sched_getaffinity(0)))
    with process_pool(workers) as pool:
        failed = [error for error in pool.map(partial(_run_once, str(context.device)), jobs, chunksize=2) if error]
    return {"compiled": len(jobs) - len(failed), "failed": failed}


def _run_once(device: str, job: tuple[str, Tiles]) -> str | None:
    """Compile a kernel by running it; returns the error, if any."""
    kernel, tiles = job
    try:
        with tuned.force_tiles(tiles, kernel):
            _call(kernel, Shape("", 1, 12, 64, 128, 64).inputs(torch.device(device), torch.bfloat16))()
            torch.cuda.synchronize()
    except Exception as error:
        return f"{kernel} {tiles}: {describe_error(error)}"
    return None
