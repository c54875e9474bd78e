"""Section: every implementation of the exchange against float64, on this device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch

from lookupvivit import kernels
from lookupvivit.kernels import measured, tuned
from lookupvivit.kernels.tiles import Tiles
from lookupvivit.profiling.gpu_report.exchange import (
    dispatched_exchange,
    errors,
    random_inputs,
    reference_exchange,
    relative_error,
    solve,
)
from lookupvivit.profiling.gpu_report.state import Context, Item, Result

# Largest relative errors, in norm, of results and of gradients
BOUNDS = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-2, 1e-2), torch.float16: (1e-2, 1e-2)}

Sizes = tuple[int, int, int, int, int]  # B, H, M, N, d


def items(context: Context) -> Iterator[Item]:
    """Sizes of models first, then odd ones; few head widths and dtypes, because each takes five compilations."""
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    cases: list[tuple[Sizes, torch.dtype]] = [
        ((1, 2, 648, 3136, 64), bf16),
        ((1, 2, 648, 3136, 64), fp32),
        ((2, 12, 25, 196, 64), bf16),
        *(((1, 2, m, n, 64), bf16) for m, n in ((1, 200), (64, 64), (63, 129), (300, 1))),
        *(((1, 2, 67, 70, d), dtype) for d, dtype in ((64, fp16), (128, bf16), (48, fp32))),
    ]
    if context.dry_run:
        cases = [((1, 2, 21, 35, 16), fp32), ((1, 1, 16, 17, 24), bf16)]
    for sizes, dtype in cases:
        yield Item(_key("triton", sizes, dtype), partial(_compare, context, sizes, dtype))
    # Scores that overflow without subtracting the maximum of a row, other tiles, and strided inputs
    first = cases[0][0]
    yield Item("triton large scores", partial(_compare, context, (1, 2, 9, 70, 64), fp32, 40.0))
    tested = [Tiles(64, 32, 4, 3), Tiles(128, 64, 8, 3), Tiles(64, 64, 4, 3, descriptors=True)]
    for tiles in tested if not context.dry_run else (Tiles(16, 16, 4, 2), Tiles(16, 16, 4, 2, descriptors=True)):
        yield Item(f"triton tiles {tiles}", partial(_compare, context, first, cases[0][1], 1.0, tiles))
    yield Item("triton strided inputs", partial(_strided, context))
    yield Item("triton reproducible", partial(_reproducible, context))
    if not context.dry_run:  # the operators of a GPU
        for direction, names in measured.IMPLEMENTATIONS.items():
            for name in names[1:]:
                yield Item(f"{direction} {name}", partial(_compare_direction, context, direction, name))


def _key(name: str, sizes: Sizes, dtype: torch.dtype) -> str:
    return f"{name} {'x'.join(map(str, sizes))} {str(dtype).removeprefix('torch.')}"


def _compare(
    context: Context, sizes: Sizes, dtype: torch.dtype, factor: float = 1.0, tiles: Tiles | None = None
) -> Result:
    inputs = [x.to(context.device) for x in random_inputs(*sizes, dtype)]
    inputs[0] = inputs[0] * factor
    with ExitStack() as choices:
        choices.enter_context(kernels.use("triton"))
        if tiles is not None:
            choices.enter_context(tuned.force_tiles(tiles))
        found = errors(inputs, exact_on=str(context.device))
    if sizes[3] == 1:  # the softmax of a single score is constant: its gradients are rounding errors
        del found["d_q"], found["d_k"]
    return _judge(found, dtype)


def _compare_direction(context: Context, direction: str, name: str) -> Result:
    """One direction by another implementation, in the exchange of a model."""
    inputs = [x.to(context.device) for x in random_inputs(1, 12, 648, 3136, 64, torch.bfloat16)]
    shapes = tuned.shape_class(inputs[0], inputs[1])
    entry = {tuned.device_name(context.device): {"fastest": {direction: {shapes: name}}, "fused_from": 1}}
    with tuned.use_table(entry), kernels.use("auto"):
        return _judge(errors(inputs, exact_on=str(context.device)), torch.bfloat16)


def _judge(found: dict[str, float], dtype: torch.dtype) -> Result:
    forward, backward = BOUNDS[dtype]
    passed = all(error < (backward if name.startswith("d_") else forward) for name, error in found.items())
    return {"errors": found, "bounds": [forward, backward], "passed": passed}


def _strided(context: Context) -> Result:
    """Inputs whose features are not adjacent, next to NaN that must not be read."""
    dense = [x.to(context.device) for x in random_inputs(2, 2, 21, 35, 24)]
    strided = [torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for x in dense]
    with kernels.use("triton"):
        found = solve(dispatched_exchange, strided)
    expected = solve(reference_exchange, [x.double() for x in dense])
    worst = max(relative_error(a, b) for a, b in zip(found, expected, strict=True))
    return _judge({"d_all": worst}, torch.float32)


def _reproducible(context: Context) -> Result:
    inputs = [x.to(context.device) for x in random_inputs(1, 2, 40, 70, 64, context.dtype)]
    with kernels.use("triton"):
        first, second = solve(dispatched_exchange, inputs), solve(dispatched_exchange, inputs)
    return {"passed": all(torch.equal(a, b) for a, b in zip(first, second, strict=True))}
