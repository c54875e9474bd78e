"""Compute as an argument: the largest compressed size of a LookupViT that keeps within a budget on this machine.

It lives here, because counting and timing a model stand above the models (and counting needs fvcore);
`LookupViT.for_budget` is a door to it that is opened when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lookupvivit.layers.compressed_init import Resample
from lookupvivit.models.base import Size, as_size
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.profiling.flops import count
from lookupvivit.profiling.timing import seconds_of

# Shares of a lookup grid's sides. 14 x 14 gives 4, 5, 7, 9 and 10, as the paper's sizes lie; with all of the grid the
# exchange would cost more than it saves.
SHARES = (1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)

# What was counted or timed, by model and then by everything else that it depends on.
_known: WeakKeyDictionary[LookupViT, dict[tuple[Any, ...], float]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class AtSize:
    """A model bound to one compressed size, called like the model, whose weights it shares.

    Attributes:
        model: the LookupViT.
        compressed_size: (t, h, w).
        gflops: multiply-adds of one clip, in G (as Table 4 counts).
        ms: what the budgeted call was measured to take; None where the budget was one of GFLOPs.
    """

    model: LookupViT
    compressed_size: Size
    gflops: float
    ms: float | None = None

    def __call__(self, video: Tensor, return_intermediates: bool = False) -> ModelOutput:
        """The model's own call, (B, 3, T, H, W) in [-1, 1]."""
        return self.model(video, self.compressed_size, return_intermediates)


def for_budget(
    model: LookupViT,
    gflops: float | None = None,
    ms: float | None = None,
    sizes: Iterable[Size] | None = None,
    input_size: Size | None = None,
    batch: int = 1,
) -> AtSize:
    """The model at the largest compressed size (most tokens) that keeps within a budget.

    Args:
        gflops: most multiply-adds of one clip, in G, counted by `lookupvivit.profiling.flops`.
        ms: most milliseconds of one call with ``batch`` clips, measured on the model's device as it is now. Either this
            or ``gflops``.
        sizes: (t, h, w) to choose from, best those that the model was trained at; by default `usual_sizes`.
        input_size: (T, H, W) pixels of a clip, the model's own by default.
        batch: clips per call, of a budget in milliseconds.

    Counts and times are kept as long as the model lives, so that only the first call takes a while.

    Raises:
        ValueError: not exactly one budget, one that no size meets (the smallest is named with its cost), or no size.
    """
    given = {key: value for key, value in {"gflops": gflops, "ms": ms}.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"a budget is either gflops or ms, found {given or 'neither'}")
    [(unit, budget)] = given.items()
    if not budget > 0:
        raise ValueError(f"{unit} must be above 0, found {budget!r}")
    candidates = sorted({as_size(size) for size in (usual_sizes(model) if sizes is None else sizes)}, key=_order)
    if not candidates:
        raise ValueError("sizes must hold at least one (t, h, w), found none")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, found {batch!r}")
    pixels = model.input_size if input_size is None else as_size(input_size)
    if unit == "gflops":
        costs = {size: gflops_of(model, size, pixels) for size in candidates}
    else:
        costs = ms_of(model, candidates, pixels, batch)
    chosen = largest_within(costs, budget)
    if chosen is None:
        smallest = candidates[0]
        raise ValueError(
            f"no compressed size keeps within {budget:g} {unit}: the smallest, {named(smallest)}, takes "
            f"{costs[smallest]:.3g}"
        )
    return AtSize(model, chosen, gflops_of(model, chosen, pixels), costs[chosen] if unit == "ms" else None)


def largest_within(costs: dict[Size, float], budget: float) -> Size | None:
    """The size of most tokens whose cost is at most ``budget``; None where there is none."""
    return max((size for size, cost in costs.items() if cost <= budget), key=_order, default=None)


def usual_sizes(model: LookupViT) -> list[Size]:
    """The model's own compressed size and those whose sides are `SHARES` of its lookup grid's, at the same t.

    A model whose compressed size is fixed (two ablations of Table 5) has only its own.
    """
    t, *_ = own = model.compressed_size
    if not isinstance(model.compress, Resample):
        return [own]
    _, height, width = model.embedding.grid(model.input_size)
    divided = {(t, max(1, round(height * share)), max(1, round(width * share))) for share in SHARES}
    return sorted({own, *divided}, key=_order)


def gflops_of(model: LookupViT, size: Size, input_size: Size) -> float:
    """Multiply-adds of one clip of (T, H, W) pixels, in G."""

    def counted() -> float:
        return count(model, (1, 3, *input_size), compressed_size=size).macs / 1e9

    return _once(model, ("gflops", size, input_size), counted)


def ms_of(model: LookupViT, sizes: Iterable[Size], input_size: Size, batch: int) -> dict[Size, float]:
    """Median milliseconds of a call with ``batch`` clips at each of the sizes, timed in turn, in evaluation mode."""
    weight = model.positions
    setting = ("ms", input_size, batch, weight.device, weight.dtype, torch.get_num_threads())
    known, sizes = _known.setdefault(model, {}), list(sizes)
    if missing := [size for size in sizes if (*setting, size) not in known]:
        clip = torch.rand(batch, 3, *input_size, device=weight.device).to(weight.dtype) * 2 - 1
        training = {module: module.training for module in model.modules()}
        model.eval()
        try:
            spent = seconds_of([_bound(model, clip, size) for size in missing], weight.device)
        finally:
            for module, mode in training.items():
                module.training = mode
        known |= {(*setting, size): 1000 * seconds for size, seconds in zip(missing, spent, strict=True)}
    return {size: known[(*setting, size)] for size in sizes}


def named(size: Size) -> str:
    """(4, 3, 3) as 4x3x3."""
    return "x".join(map(str, size))


def _bound(model: LookupViT, clip: Tensor, size: Size) -> Callable[[], ModelOutput]:
    return lambda: model(clip, compressed_size=size)


def _once(model: LookupViT, key: tuple[Any, ...], find: Callable[[], float]) -> float:
    known = _known.setdefault(model, {})
    if key not in known:
        known[key] = find()
    return known[key]


def _order(size: Size) -> tuple[int, Size]:
    """More tokens are larger; of as many, those of more frames."""
    return math.prod(size), size
