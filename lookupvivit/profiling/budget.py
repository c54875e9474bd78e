"""Compute as an argument: the largest numbers of tokens of a LookupViT within a budget of GFLOPs or milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lookupvivit.models.base import check_keep
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.profiling.flops import count_cost
from lookupvivit.profiling.timing import median_times
from lookupvivit.sizes import Keep, Size, TokenSetting, as_keep, as_size

# Default compressed sizes as fractions of the lookup grid's sides. A grid of 14 x 14 gives 4, 5, 7, 9 and 10, close to
# the paper's sizes. Closer to the whole grid, the exchange would cost more than it saves.
GRID_FRACTIONS = (1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)

# Costs by model and then by everything else that they depend on.
_cache: WeakKeyDictionary[LookupViT, dict[tuple[Any, ...], float]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class FixedSizeModel:
    """A model bound to one compressed size and share of tokens. It is called like the model and shares its weights.

    Attributes:
        model: the LookupViT.
        compressed_size: (t, h, w).
        gflops: multiply-adds of one clip in G, as the paper's Table 4 counts.
        ms: measured milliseconds of a call; None for a budget of GFLOPs.
        keep: the lookup tokens that are kept; None for all.
    """

    model: LookupViT
    compressed_size: Size
    gflops: float
    ms: float | None = None
    keep: Keep | None = None

    def __call__(self, video: Tensor, return_intermediates: bool = False) -> ModelOutput:
        """The model's call on a video (B, 3, T, H, W) with values in [-1, 1]."""
        return self.model(video, self.compressed_size, return_intermediates, self.keep)


def for_budget(
    model: LookupViT,
    gflops: float | None = None,
    ms: float | None = None,
    sizes: Iterable[Size] | None = None,
    input_size: Size | None = None,
    batch_size: int = 1,
    keep: Iterable[float | str | Keep] = (1.0,),
) -> FixedSizeModel:
    """Choose the largest compressed size (most tokens) within a budget; of several shares, the most expensive setting.

    Costs are cached for the lifetime of the model, so that only the first call is slow.

    Args:
        model: any LookupViT.
        gflops: maximum multiply-adds of one clip in G, counted by `lookupvivit.profiling.flops`.
        ms: maximum milliseconds of one call with ``batch_size`` clips, measured on the model's device. Give either
            this or ``gflops``.
        sizes: (t, h, w) to choose from, best those that the model was trained at; by default `default_sizes`.
        input_size: (T, H, W) pixels of a clip; by default the model's own.
        batch_size: clips per call, for a budget of milliseconds.
        keep: shares of the lookup tokens to choose from, best those that the model was trained with; see
            `lookupvivit.layers.token_selection`.

    Raises:
        ValueError: not exactly one budget, no sizes or shares, or a budget that no setting meets; the message then
            names the cheapest one and its cost.
    """
    budgets = {unit: budget for unit, budget in {"gflops": gflops, "ms": ms}.items() if budget is not None}
    if len(budgets) != 1:
        raise ValueError(f"budget: found {budgets or 'none'}, expected either gflops or ms")
    [(unit, budget)] = budgets.items()
    if not budget > 0:
        raise ValueError(f"{unit}: found {budget!r}, expected a number above 0")
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size!r}, expected at least 1")
    candidates = _candidates(model, sizes, keep)
    pixels = model.input_size if input_size is None else as_size(input_size)
    gflops_of = {tokens: count_gflops(model, tokens, pixels) for tokens in candidates} if unit == "gflops" else {}
    costs = gflops_of or measure_ms(model, candidates, pixels, batch_size)
    several_shares = len({tokens.keep for tokens in candidates}) > 1

    def rank(tokens: TokenSetting) -> tuple[Any, ...]:
        return costs[tokens] if several_shares else 0, *_num_tokens(tokens)

    chosen = max((tokens for tokens in candidates if costs[tokens] <= budget), key=rank, default=None)
    if chosen is None:
        cheapest = min(candidates, key=rank)
        raise ValueError(
            f"{unit}: found a budget of {budget:g}, expected at least {costs[cheapest]:.3g}, "
            f"the cost of the smallest compressed size {cheapest}"
        )
    measured = costs[chosen] if unit == "ms" else None
    size, kept = chosen
    assert size is not None
    return FixedSizeModel(model, size, count_gflops(model, chosen, pixels), measured, kept)


def _candidates(
    model: LookupViT, sizes: Iterable[Size] | None, keep: Iterable[float | str | Keep]
) -> list[TokenSetting]:
    """Every combination of the sizes and shares, checked, from few compressed tokens to many."""
    chosen = {as_size(size) for size in (default_sizes(model) if sizes is None else sizes)}
    keeps = [as_keep(share) for share in keep]
    for key, found, expected in (("sizes", chosen, "(t, h, w)"), ("keep", keeps, "share")):
        if not found:
            raise ValueError(f"{key}: found none, expected at least one {expected}")
    settings = {TokenSetting(size, share if share.share < 1 else None) for size in chosen for share in keeps}
    for tokens in settings:
        check_keep(model, tokens.keep)
    return sorted(settings, key=_num_tokens)


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
    return sorted(sizes, key=lambda size: (math.prod(size), size))


def count_gflops(model: LookupViT, tokens: TokenSetting, input_size: Size) -> float:
    """Multiply-adds of one clip of (T, H, W) pixels with these numbers of tokens, in G."""
    known, key = _cache.setdefault(model, {}), ("gflops", tokens, input_size)
    if key not in known:
        known[key] = count_cost(model, (1, 3, *input_size), **tokens.call).macs / 1e9
    return known[key]


def measure_ms(
    model: LookupViT, settings: Iterable[TokenSetting], input_size: Size, batch_size: int
) -> dict[TokenSetting, float]:
    """Median milliseconds of a call with ``batch_size`` clips each, in evaluation mode and in alternation."""
    weight = model.positions
    setting = ("ms", input_size, batch_size, weight.device, weight.dtype, torch.get_num_threads())
    known = _cache.setdefault(model, {})
    keys = {tokens: (*setting, tokens) for tokens in settings}
    if missing := [tokens for tokens, key in keys.items() if key not in known]:
        clips = torch.rand(batch_size, 3, *input_size, device=weight.device).to(weight.dtype) * 2 - 1
        was_training = {module: module.training for module in model.modules()}
        model.eval()
        try:
            times = median_times([_bind(model, clips, tokens) for tokens in missing], weight.device)
        finally:
            for module, training in was_training.items():
                module.training = training
        for tokens, seconds in zip(missing, times, strict=True):
            known[keys[tokens]] = 1000 * seconds
    return {tokens: known[key] for tokens, key in keys.items()}


def _bind(model: LookupViT, clips: Tensor, tokens: TokenSetting) -> Callable[[], ModelOutput]:
    return lambda: model(clips, **tokens.call)


def _num_tokens(tokens: TokenSetting) -> tuple[Any, ...]:
    """Sort key: number of compressed tokens, then their frames, then the share of kept tokens."""
    size = tokens.compressed_size or ()
    return math.prod(size), size, tokens.keep.share if tokens.keep else 1, str(tokens)
