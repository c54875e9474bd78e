"""Section: the implementations of each direction against each other, and against what the device can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lookupvivit import kernels
from lookupvivit.kernels import flex, measured, reference, sdpa, tuned
from lookupvivit.profiling.gpu_report.exchange import (
    Shape,
    bytes_moved,
    dispatched_exchange,
    flops,
    reference_exchange,
    relative_error,
    shapes_to_measure,
    solve,
)
from lookupvivit.profiling.gpu_report.measurement import measure_peaks, time_call
from lookupvivit.profiling.gpu_report.state import Context, Item, Result, describe_error, load_results
from lookupvivit.profiling.gpu_report.table import extend_table

PEAKS = "peaks"
WHOLE = "exchange"  # both directions, through autograd
MAX_ERROR = 2e-2  # relative, in norm, of results in half precision
MIN_GAIN = 0.03  # share of time below which Triton stays

Results = tuple[Any, ...]  # tensors
Calls = dict[str, Callable[[], Results]]


def items(context: Context) -> Iterator[Item]:
    """The peaks, then all directions of the most important shapes first."""
    yield Item(PEAKS, partial(measure_peaks, context.device, context.dtype))
    for shape in shapes_to_measure(context.dry_run):
        for direction in measured.IMPLEMENTATIONS:
            yield Item(f"{direction} {shape.name}", partial(_compare_direction, context, direction, shape))
        yield Item(f"{WHOLE} {shape.name}", partial(_compare_whole, context, shape))


def finish(context: Context, results: Mapping[str, Result]) -> None:
    """Write the winners and the size from which A is not materialised."""
    found: dict[str, object] = {"fastest": _winners(results)}
    if (size := _fused_from(results)) is not None:
        found["fused_from"] = size
    extend_table(context, found)


def _winners(results: Mapping[str, Result]) -> dict[str, dict[str, str]]:
    """Direction -> class of shapes -> the implementation with the smallest mean time relative to Triton's."""
    relative: dict[tuple[str, str], list[dict[str, float]]] = {}
    for result in results.values():
        seconds = result.get("seconds", {})
        if result.get("direction") in measured.IMPLEMENTATIONS and "triton" in seconds:
            allowed = {name: time / seconds["triton"] for name, time in seconds.items() if name != "reference"}
            relative.setdefault((result["direction"], result["class"]), []).append(allowed)
    winners: dict[str, dict[str, str]] = {}
    for (direction, shapes), times in relative.items():
        common = set.intersection(*map(set, times))
        means = {name: sum(row[name] for row in times) / len(times) for name in common}
        best = min(means, key=lambda name: means[name])
        if means[best] < 1 - MIN_GAIN:
            winners.setdefault(direction, {})[shapes] = best
    return winners


def _fused_from(results: Mapping[str, Result]) -> int | None:
    """The smallest measured size of A such that, from it on, not materialising A was faster in every training step."""
    sizes = sorted(
        (result["weights"], result["training"]["measured"] < result["training"]["reference"])
        for result in results.values()
        if {"measured", "reference"} <= set(result.get("training", {}))
    )
    smallest = None
    for size, faster in reversed(sizes):
        if not faster:
            return smallest if smallest is not None else 4 * size  # beyond all measured sizes
        smallest = size
    return smallest


def _compare_direction(context: Context, direction: str, shape: Shape) -> Result:
    inputs = shape.inputs(context.device, context.dtype)
    expected = _expected(direction, inputs)
    seconds, errors, failed = {}, {}, {}
    for name, call in _calls(direction, inputs).items():
        try:
            error = max(relative_error(a, b) for a, b in zip(call(), expected, strict=True))
            if not error < MAX_ERROR:
                raise ValueError(f"relative error {error:.2g}")
            errors[name], seconds[name] = error, time_call(call, context.device)
        except Exception as error:  # not supported for these sizes, this device or this release
            failed[name] = describe_error(error)
    bounds = _bounds(context, direction, shape)
    work = {"flops": flops(direction, shape), "bytes": bytes_moved(direction, shape, context.dtype)}
    identity = {"direction": direction, "shape": shape.name, "class": tuned.shape_class(*inputs[:2])}
    return {**identity, **work, "bounds": bounds, "seconds": seconds, "errors": errors, "failed": failed}


def _bounds(context: Context, direction: str, shape: Shape) -> dict[str, float]:
    """Seconds that each part of the device needs at least: matrix units, memory, and exponentials."""
    peaks = load_results(context, "alternatives").get(PEAKS, {})
    work = {
        "flops": flops(direction, shape),
        "bytes": bytes_moved(direction, shape, context.dtype),
        "exponentials": shape.weights,
    }
    return {part: amount / peaks[part] for part, amount in work.items() if peaks.get(part)}


def _expected(direction: str, inputs: Sequence[Tensor]) -> Results:
    """By the equations, in float32."""
    inputs = [x.float() for x in inputs]
    q, k, v, w, _, h = inputs
    if direction == "backward":
        return tuple(solve(reference_exchange, inputs, mixing=0.0)[2:5])
    attention = reference.attend(q, k)
    if direction == "infuse":
        return (attention.mT @ w,)
    return (attention @ (v if direction == "gather" else h),)


def _calls(direction: str, inputs: Sequence[Tensor]) -> Calls:
    """Implementations by name. The reference has A from its gather, where the others recompute it."""
    from lookupvivit.kernels import triton

    q, k, v, w, g, h = inputs
    out, lse = triton.gather(q, k, v)
    d_w = triton.gather_again(q, k, lse, h)
    attention = reference.attend(q, k)
    gathered, infused = (v, out, g), (w, d_w, h)
    calls: dict[str, Calls] = {
        "gather": {
            "triton": lambda: triton.gather(q, k, v)[:1],
            "reference": lambda: reference.gather(q, k, v)[:1],
            **{name: partial(_attend, q, k, v, name) for name in sdpa.BACKENDS},
        },
        "gather_again": {
            "triton": lambda: (triton.gather_again(q, k, lse, h),),
            "reference": lambda: (attention @ h,),
            **{name: partial(_attend, q, k, h, name) for name in sdpa.BACKENDS},
        },
        "infuse": {
            "triton": lambda: (triton.infuse(q, k, lse, w),),
            "flex": lambda: (flex.infuse(q, k, lse, w),),
            "reference": lambda: (reference.infuse(attention, w),),
        },
        "backward": {
            "triton": lambda: triton.backward(q, k, lse, gathered, infused),
            **{name: partial(sdpa.backward, q, k, lse, gathered, infused, name) for name in sdpa.BACKENDS},
        },
    }
    return calls[direction]


def _attend(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Results:
    return sdpa.gather(q, k, v, backend)[:1]


def _compare_whole(context: Context, shape: Shape) -> Result:
    """Both directions forward, and a forward and a backward pass, as a model calls them."""
    inputs = shape.inputs(context.device, context.dtype)
    q, k, v, w, *_ = inputs
    forward, training, failed = {}, {}, {}
    for name in ("triton", "measured", "reference"):
        # "measured" is `auto` for a GPU, whatever the size of A.
        entry = tuned.current_entry(context.device) | {"fused_from": 1}
        table = {tuned.device_name(context.device): entry} if name == "measured" else None
        with tuned.use_table(table) if table else nullcontext(), kernels.use("auto" if table else name):
            try:
                with torch.no_grad():
                    forward[name] = time_call(partial(dispatched_exchange, q, k, v, w, 0.3), context.device)
                training[name] = time_call(partial(solve, dispatched_exchange, inputs), context.device)
            except Exception as error:
                failed[name] = describe_error(error)
    identity = {"direction": WHOLE, "shape": shape.name, "weights": shape.weights}
    return {**identity, "forward": forward, "training": training, "failed": failed}
