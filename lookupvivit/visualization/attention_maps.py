"""Attention of a model's compressed tokens, as arrays over the frames of its input (Fig. 1a, 6 and 7).

maps = attention_maps(model, video, blocks=[0, 3])  # video (3, T, H, W) in [-1, 1]
maps.multiples.shape                                # (2, t, h, w); 1 is uniform attention
maps.pixels().shape                                 # (2, T, H, W)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.sizes import Size, as_size, format_size


@dataclass(frozen=True)
class AttentionMaps:
    """R attention maps of one video: one per block, or one per block and selected compressed token.

    Attributes:
        frames: the model's input, uint8 (T, H, W, 3).
        weights: float32 (R, t, h, w), attention over the lookup tokens; each map sums to 1.
        rows: what each map shows, (block, compressed token (t, h, w)); the token is None for the mean over all tokens.
        heads: the attention heads over which every map is averaged.
        num_heads: the number of attention heads of the model.
        compressed_size: (t, h, w).
        probabilities: float32 (K,), softmax of the logits.
    """

    frames: np.ndarray
    weights: np.ndarray
    rows: tuple[tuple[int, Size | None], ...]
    heads: tuple[int, ...]
    num_heads: int
    compressed_size: Size
    probabilities: np.ndarray

    @property
    def multiples(self) -> np.ndarray:
        """The weights in multiples of uniform attention, (R, t, h, w). Their mean is 1 for any number of tokens."""
        return self.weights * math.prod(self.weights.shape[1:])

    def within(self, coverage: np.ndarray) -> np.ndarray:
        """Attention to a part of the clip relative to uniform attention, (R,).

        This is the share of each map's weight on the part, divided by the part's share of the clip: 1 for maps that do
        not distinguish it.

        Args:
            coverage: how much of each lookup token the part covers, (t, h, w) in [0, 1], see `token_coverage`.

        Raises:
            ValueError: another shape, or a part that covers nothing.
        """
        if coverage.shape != self.weights.shape[1:] or not coverage.sum() > 0:
            raise ValueError(
                f"coverage: found {coverage.shape} with the sum {coverage.sum():g}, expected "
                f"{self.weights.shape[1:]} and a positive sum"
            )
        mass = (self.weights * coverage).sum(axis=(1, 2, 3), dtype=np.float64)
        return mass / coverage.mean(dtype=np.float64)

    def pixels(self, height: int | None = None, width: int | None = None) -> np.ndarray:
        """`multiples` at the resolution of the frames, (R, T, H, W), or at (height, width). See `upsample_maps`."""
        num_frames, frame_height, frame_width, _ = self.frames.shape
        maps = torch.from_numpy(self.multiples)
        return upsample_maps(maps, num_frames, height or frame_height, width or frame_width).numpy()

    def cell(self, row: int) -> tuple[slice, slice, slice] | None:
        """The region of `frames` that the row's compressed token covers, as (T, H, W) slices; None for a mean.

        The region is rounded outwards to whole frames and pixels, because there may be more tokens than frames.
        """
        token = self.rows[row][1]
        if token is None:
            return None
        t, h, w = (
            slice(index * length // count, math.ceil((index + 1) * length / count))
            for index, count, length in zip(token, self.compressed_size, self.frames.shape[:3], strict=True)
        )
        return t, h, w


@torch.no_grad()
def attention_maps(
    model: nn.Module,
    video: Tensor,
    blocks: Sequence[int] = (0,),
    heads: Sequence[int] | None = None,
    tokens: Sequence[Size] | None = None,
    compressed_size: Size | None = None,
) -> AttentionMaps:
    """Run a LookupViT on one video or image and return the cross-attention of its compressed tokens.

    Args:
        model: a LookupViT or LookupViViT with an exchange. Its mode (train or eval) does not matter and is restored.
        video: float (3, T, H, W), or an image (3, H, W), in [-1, 1].
        blocks: block numbers, from 0. For video the paper shows the first block; for images it finds the second block
            best (appendix A.6).
        heads: attention heads to average over; default: all.
        tokens: compressed tokens (t, h, w), one map for each; default: one map, the mean over all tokens.
        compressed_size: (t, h, w) instead of the model's own.

    Raises:
        ValueError: a model without cross-attention; a block, head or token that the model does not have; an input
            that is not one video.
    """
    check_selection(model, blocks, heads, tokens, compressed_size)
    if video.dim() not in (3, 4) or video.shape[0] != 3 or not video.is_floating_point():
        raise ValueError(
            f"video: found {video.dtype} {tuple(video.shape)}, expected one video (3, T, H, W) or image (3, H, W) of "
            "floats in [-1, 1]"
        )
    video = video[:, None] if video.dim() == 3 else video
    was_training = model.training
    try:
        parameter = next(model.parameters())
        output = model.eval()(video[None].to(parameter), compressed_size, return_intermediates=True)
    finally:
        model.train(was_training)
    return maps_from_output(video, output, blocks, heads, tokens)


def maps_from_output(
    video: Tensor,
    output: ModelOutput,
    blocks: Sequence[int] = (0,),
    heads: Sequence[int] | None = None,
    tokens: Sequence[Size] | None = None,
) -> AttentionMaps:
    """The maps of a forward pass that was run with ``return_intermediates``.

    Args:
        video: its input, one video (3, T, H, W) in [-1, 1].
        output: its output.
        blocks, heads, tokens: as for `attention_maps`.

    Raises:
        ValueError: the attention has NaN or infinite values.
    """
    attention = {block: output.intermediates[block]["attention"] for block in blocks}
    weights = torch.cat([select_maps(matrix, heads, tokens) for matrix in attention.values()]).cpu()
    if not weights.isfinite().all():
        raise ValueError("attention: found NaN or infinite values; the model's weights are corrupt")
    num_heads, *compressed_size = attention[blocks[0]].shape[1:5]
    frames = ((video.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return AttentionMaps(
        frames=frames.movedim(0, -1).contiguous().numpy(),
        weights=weights.numpy(),
        rows=tuple((block, token) for block in attention for token in (tokens or (None,))),
        heads=tuple(range(num_heads) if heads is None else heads),
        num_heads=num_heads,
        compressed_size=as_size(compressed_size),
        probabilities=output.logits[0].float().softmax(dim=-1).cpu().numpy(),
    )


def token_coverage(mask: np.ndarray, grid: Size) -> np.ndarray:
    """How much of each lookup token a mask covers, float64 (t, h, w).

    Args:
        mask: share of each pixel that is covered, (T, H, W) in [0, 1].
        grid: (t, h, w), divisors of T, H and W.
    """
    t, h, w = grid
    frames, height, width = mask.shape
    tubelets = mask.reshape(t, frames // t, h, height // h, w, width // w)
    return tubelets.mean(axis=(1, 3, 5), dtype=np.float64)


def select_maps(attention: Tensor, heads: Sequence[int] | None = None, tokens: Sequence[Size] | None = None) -> Tensor:
    """The maps of one block, averaged over heads: one per token of ``tokens``, or their mean over all tokens.

    Args:
        attention: A (1, heads, tp, hp, wp, t, h, w), summing to 1 over (t, h, w).
        heads, tokens: as for `attention_maps`.

    Returns:
        float32 (R, t, h, w), each summing to 1.
    """
    if attention.dim() != 8 or attention.shape[0] != 1:
        raise ValueError(f"attention: found {tuple(attention.shape)}, expected (1, heads, tp, hp, wp, t, h, w)")
    per_head = attention[0] if heads is None else attention[0, list(heads)]
    if tokens:
        return torch.stack([per_head[:, t, h, w].float().mean(dim=0) for t, h, w in tokens])
    return per_head.mean(dim=(0, 1, 2, 3), dtype=torch.float32)[None]


def check_selection(
    model: nn.Module,
    blocks: Sequence[int],
    heads: Sequence[int] | None = None,
    tokens: Sequence[Size] | None = None,
    compressed_size: Size | None = None,
) -> None:
    """Raise ValueError, naming the valid choices, unless `attention_maps` accepts these arguments."""
    expected = "expected a lookupvit or lookupvivit model"
    if not isinstance(model, LookupViT):
        raise ValueError(f"model: found a {type(model).__name__}, which has no cross-attention; {expected}")
    block: Any = model.blocks[0]
    if block.exchange == "none":
        raise ValueError(f"model: found a LookupViT without exchange, which has no cross-attention; {expected}")
    _check_indices("block", blocks, len(model.blocks))
    if heads is not None:
        _check_indices("head", heads, block.gather.num_heads)
    size = model.compressed_size if compressed_size is None else as_size(compressed_size)
    for token in tokens or ():
        if not _is_position(token, size):
            last = ",".join(str(count - 1) for count in size)
            raise ValueError(
                f"tokens: found {','.join(map(str, token))}, expected positions t,h,w from 0,0,0 to {last} in the "
                f"compressed size {format_size(size)}"
            )


def _check_indices(kind: str, indices: Sequence[int], count: int) -> None:
    if not indices:
        raise ValueError(f"{kind}s: found none, expected at least one of 0 to {count - 1}")
    for index in indices:
        if not isinstance(index, Integral) or not 0 <= index < count:
            raise ValueError(f"{kind}s: found {index}, expected 0 to {count - 1}; the model has {count} {kind}s")


def _is_position(token: Sequence[int], size: Size) -> bool:
    if len(token) != 3:
        return False
    return all(isinstance(i, Integral) and 0 <= i < count for i, count in zip(token, size, strict=True))


def upsample_maps(maps: Tensor, frames: int, height: int, width: int) -> Tensor:
    """Resize token maps (R, t, h, w) to the pixels of a clip, (R, frames, height, width).

    In space, interpolation is bicubic, clamped to the range of each map, because cubic interpolation overshoots. In
    time, there is no interpolation: the model embeds a tubelet as a whole, so all its frames show its map. Frame f
    shows map f * t // frames.
    """
    if maps.dim() != 4:
        raise ValueError(f"maps: found {tuple(maps.shape)}, expected (R, t, h, w)")
    tubelet = torch.arange(frames, device=maps.device) * maps.shape[1] // frames
    resized = F.interpolate(maps, size=(height, width), mode="bicubic", align_corners=False)
    resized = resized.clamp(maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True))
    return resized[:, tubelet]


def display_range(values: np.ndarray, quantile: float = 0.99) -> tuple[float, float]:
    """The values at the two ends of the colour scale: the minimum and the ``quantile``.

    Larger values have the top colour. With the maximum as the end, a single outlier would leave all other tokens dark.
    """
    return float(values.min()), float(np.quantile(values, quantile, method="nearest"))
