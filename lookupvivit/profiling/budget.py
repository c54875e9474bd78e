"""Compute as an argument: the largest compressed size of a LookupViT within a budget of GFLOPs or milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.profiling.flops import count_cost
from lookupvivit.profiling.timing import median_times
from lookupvivit.sizes import Size, as_size, format_size

# Default compressed sizes as fractions of the lookup grid's sides. A grid of 14 x 14 gives 4, 5, 7, 9 and 10, close to
# the paper's sizes. Closer to the whole grid, the exchange would cost more than it saves.
GRID_FRACTIONS = (1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)

# Costs by model and then by everything else that they depend on.
_cache: WeakKeyDictionary[LookupViT, dict[tuple[Any, ...], float]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class FixedSizeModel:
    """A model bound to one compressed size. It is called like the model and shares its weights.

    Attributes:
        model: the LookupViT.
        compressed_size: (t, h, w).
        gflops: multiply-adds of one clip in G, as the paper's Table 4 counts.
        ms: measured milliseconds of a call; None for a budget of GFLOPs.
    """

    model: LookupViT
    compressed_size: Size
    gflops: float
    ms: float | None = None

    def __call__(self, video: Tensor, return_intermediates: bool = False) -> ModelOutput:
        """The model's call on a video (B, 3, T, H, W) with values in [-1, 1]."""
        return self.model(video, self.compressed_size, return_intermediates)


def for_budget(
    model: LookupViT,
    gflops: float | None = None,
    ms: float | None = None,
    sizes: Iterable[Size] | None = None,
    input_size: Size | None = None,
    batch_size: int = 1,
) -> FixedSizeModel:
    """Choose the largest compressed size (most tokens) within a budget.

    Costs are cached for the lifetime of the model, so that only the first call is slow.

    Args:
        model: any LookupViT.
        gflops: maximum multiply-adds of one clip in G, counted by `lookupvivit.profiling.flops`.
        ms: maximum milliseconds of one call with ``batch_size`` clips, measured on the model's device. Give either
            this or ``gflops``.
        sizes: (t, h, w) to choose from, best those that the model was trained at; by default `default_sizes`.
        input_size: (T, H, W) pixels of a clip; by default the model's own.
        batch_size: clips per call, for a budget of milliseconds.

    Raises:
        ValueError: not exactly one budget, no sizes, or a budget that no size meets; the message then names the
            smallest size and its cost.
    """
    budgets = {unit: budget for unit, budget in {"gflops": gflops, "ms": ms}.items() if budget is not None}
    if len(budgets) != 1:
        raise ValueError(f"budget: found {budgets or 'none'}, expected either gflops or ms")
    [(unit, budget)] = budgets.items()
    if not budget > 0:
        raise ValueError(f"{unit}: found {budget!r}, expected a number above 0")
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size!r}, expected at least 1")
    candidates = sorted({as_size(size) for size in (default_sizes(model) if sizes is None else sizes)}, key=_num_tokens)
    if not candidates:
        raise ValueError("sizes: found none, expected at least one (t, h, w)")
    pixels = model.input_size if input_size is None else as_size(input_size)
    if unit == "gflops":
        costs = {size: count_gflops(model, size, pixels) for size in candidates}
    else:
        costs = measure_ms(model, candidates, pixels, batch_size)
    chosen = largest_within(costs, budget)
    if chosen is None:
        smallest = candidates[0]
        raise ValueError(
            f"{unit}: found a budget of {budget:g}, expected at least {costs[smallest]:.3g}, "
            f"the cost of the smallest compressed size {format_size(smallest)}"
        )
    measured = costs[chosen] if unit == "ms" else None
    return FixedSizeModel(model, chosen, count_gflops(model, chosen, pixels), measured)


def largest_within(costs: dict[Size, float], budget: float) -> Size | None:
    """The size with most tokens whose cost is at most ``budget``; None if there is none."""
    return max((size for size, cost in costs.items() if cost <= budget), key=_num_tokens, default=None)


def default_sizes(model: LookupViT) -> list[Size]:
    """The model's own compressed size, and `GRID_FRACTIONS` of its lookup grid with the same t.

    A model with a fixed compressed size (two ablations of Table 5) has only its own.
    """
    t, *_ = own = model.compressed_size
    if not model.compress.any_size:
        return [own]
    _, height, width = model.embedding.grid(model.input_size)
    sizes = {own}
    for fraction in GRID_FRACTIONS:
        sizes.add((t, max(1, round(height * fraction)), max(1, round(width * fraction))))
    return sorted(sizes, key=_num_tokens)


def count_gflops(model: LookupViT, size: Size, input_size: Size) -> float:
    """Multiply-adds of one clip of (T, H, W) pixels at a compressed size, in G."""
    known, key = _cache.setdefault(model, {}), ("gflops", size, input_size)
    if key not in known:
        known[key] = count_cost(model, (1, 3, *input_size), compressed_size=size).macs / 1e9
    return known[key]


def measure_ms(model: LookupViT, sizes: Iterable[Size], input_size: Size, batch_size: int) -> dict[Size, float]:
    """Median milliseconds of a call with ``batch_size`` clips at each size, in evaluation mode and in alternation."""
    weight = model.positions
    setting = ("ms", input_size, batch_size, weight.device, weight.dtype, torch.get_num_threads())
    known = _cache.setdefault(model, {})
    keys = {size: (*setting, size) for size in sizes}
    if missing := [size for size, key in keys.items() if key not in known]:
        clips = torch.rand(batch_size, 3, *input_size, device=weight.device).to(weight.dtype) * 2 - 1
        was_training = {module: module.training for module in model.modules()}
        model.eval()
        try:
            times = median_times([_call_at_size(model, clips, size) for size in missing], weight.device)
        finally:
            for module, training in was_training.items():
                module.training = training
        for size, seconds in zip(missing, times, strict=True):
            known[keys[size]] = 1000 * seconds
    return {size: known[key] for size, key in keys.items()}


def _call_at_size(model: LookupViT, clips: Tensor, size: Size) -> Callable[[], ModelOutput]:
    return lambda: model(clips, compressed_size=size)


def _num_tokens(size: Size) -> tuple[int, Size]:
    """Sort key: number of tokens, then number of frames."""
    return math.prod(size), size
