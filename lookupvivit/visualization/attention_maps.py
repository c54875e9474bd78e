"""Where the compressed tokens of a model look, as arrays over the frames of its input (Fig. 1a, 6 and 7).

maps = attention_maps(model, video, blocks=[0, 3])      # video (3, T, H, W) in [-1, 1]
maps.multiples.shape                                    # (2, t, h, w), 1 = as much as if all were looked at alike
maps.pixels().shape                                     # (2, T, H, W)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookupvivit.models.base import Size, as_size
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput


@dataclass(frozen=True)
class AttentionMaps:
    """Where a model looks in one video; R maps, one for every block and chosen token.

    Attributes:
        frames: what the model saw, uint8 (T, H, W, 3).
        weights: float32 (R, t, h, w), attention over the lookup tokens; each map sums to 1.
        rows: what each map is, (block, compressed token (t, h, w)), or None for the mean over all tokens.
        heads: the attention heads that every map is the mean of, and how many there are.
        compressed_size: (t, h, w).
        probabilities: float32 (K,), softmax of the logits.
    """

    frames: np.ndarray
    weights: np.ndarray
    rows: tuple[tuple[int, Size | None], ...]
    heads: tuple[tuple[int, ...], int]
    compressed_size: Size
    probabilities: np.ndarray

    @property
    def multiples(self) -> np.ndarray:
        """The weights as multiples of uniform attention, (R, t, h, w): their mean is 1 for any number of tokens."""
        return self.weights * math.prod(self.weights.shape[1:])

    def pixels(self, height: int | None = None, width: int | None = None) -> np.ndarray:
        """`multiples` over the frames, (R, T, H, W), or at another (height, width). See `upsample_maps`."""
        frames, own_height, own_width, _ = self.frames.shape
        fine = upsample_maps(torch.from_numpy(self.multiples), frames, height or own_height, width or own_width)
        return fine.numpy()

    def cell(self, row: int) -> tuple[slice, slice, slice] | None:
        """The box of `frames` that the map's compressed token stems from, as (T, H, W) slices; None for a mean."""
        token = self.rows[row][1]
        if token is None:
            return None
        boxes = zip(token, self.compressed_size, self.frames.shape[:3], strict=True)
        # outwards to whole frames and pixels: there may be more tokens than frames
        t, h, w = (slice(i * size // n, -(-(i + 1) * size // n)) for i, n, size in boxes)
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
    """Run a LookupViT on one video or image and keep where chosen blocks, heads and compressed tokens look.

    Args:
        model: a LookupViT or LookupViViT with an exchange; its mode (train or eval) is left as it is.
        video: float (3, T, H, W), or an image (3, H, W), in [-1, 1].
        blocks: numbered from 0. The paper shows the first one's for video and finds the second one's best for images
            (appendix A.6).
        heads: the maps are the mean of these; all by default.
        tokens: compressed tokens (t, h, w), a map for each; by default one map, the mean over all tokens.
        compressed_size: (t, h, w) tokens instead of the model's own number.

    Raises:
        ValueError: a model without cross-attention; a block, head or token that is not there; not one video.
    """
    check_choice(model, blocks, heads, tokens, compressed_size)
    if video.dim() not in (3, 4) or video.shape[0] != 3 or not video.is_floating_point():
        raise ValueError(
            f"video: found {video.dtype} {tuple(video.shape)}, must be one video (3, T, H, W) or image (3, H, W) of "
            "floats in [-1, 1]"
        )
    video = video[:, None] if video.dim() == 3 else video
    training = model.training
    try:
        parameter = next(model.parameters())
        output = model.eval()(video[None].to(parameter), compressed_size, return_intermediates=True)
    finally:
        model.train(training)
    return collect(video, output, blocks, heads, tokens)


def collect(
    video: Tensor,
    output: ModelOutput,
    blocks: Sequence[int] = (0,),
    heads: Sequence[int] | None = None,
    tokens: Sequence[Size] | None = None,
) -> AttentionMaps:
    """The maps of a forward pass that is done already, of one video (3, T, H, W) and with its intermediates.

    Raises:
        ValueError: attention that is not finite.
    """
    attention = {block: output.intermediates[block]["attention"] for block in blocks}
    weights = torch.cat([choose(one, heads, tokens) for one in attention.values()]).cpu()
    if not weights.isfinite().all():
        raise ValueError("attention: found values that are no finite numbers; the model's weights are broken")
    count, *size = attention[blocks[0]].shape[1:5]
    frames = ((video.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return AttentionMaps(
        frames=frames.movedim(0, -1).contiguous().numpy(),
        weights=weights.numpy(),
        rows=tuple((block, token) for block in attention for token in (tokens or (None,))),
        heads=(tuple(range(count) if heads is None else heads), count),
        compressed_size=as_size(size),
        probabilities=output.logits[0].float().softmax(dim=-1).cpu().numpy(),
    )


def choose(attention: Tensor, heads: Sequence[int] | None = None, tokens: Sequence[Size] | None = None) -> Tensor:
    """The maps of one block: mean over heads, and over the compressed tokens or one map for each of ``tokens``.

    Args:
        attention: A (1, heads, tp, hp, wp, t, h, w), summing to 1 over (t, h, w).

    Returns:
        Maps (R, t, h, w), float32, each summing to 1.
    """
    if attention.dim() != 8 or attention.shape[0] != 1:
        raise ValueError(f"attention must be (1, heads, tp, hp, wp, t, h, w), found {tuple(attention.shape)}")
    per_head = attention[0] if heads is None else attention[0, list(heads)]
    if tokens:
        return torch.stack([per_head[(slice(None), *token)].float().mean(dim=0) for token in tokens])
    return per_head.mean(dim=(0, 1, 2, 3), dtype=torch.float32)[None]


def check_choice(
    model: nn.Module,
    blocks: Sequence[int],
    heads: Sequence[int] | None = None,
    tokens: Sequence[Size] | None = None,
    compressed_size: Size | None = None,
) -> None:
    """ValueError, naming what is there, unless `attention_maps` can show this of ``model``."""
    if not isinstance(model, LookupViT) or model.blocks[0].exchange == "none":
        what = "a LookupViT without exchange" if isinstance(model, LookupViT) else f"a {type(model).__name__}"
        raise ValueError(f"model: found {what}, which has no cross-attention; must be a lookupvit or lookupvivit model")
    _check_numbers("block", blocks, len(model.blocks))
    if heads is not None:
        _check_numbers("head", heads, model.blocks[0].gather.heads)
    size = model.compressed_size if compressed_size is None else as_size(compressed_size)
    for token in () if tokens is None else tokens:
        if len(token) != 3 or not all(isinstance(i, Integral) and 0 <= i < n for i, n in zip(token, size, strict=True)):
            last = ",".join(str(n - 1) for n in size)
            raise ValueError(
                f"tokens: found {','.join(map(str, token))}, must be t,h,w from 0,0,0 to {last}; the compressed size "
                f"is {'x'.join(map(str, size))} (t, h, w)"
            )


def upsample_maps(maps: Tensor, frames: int, height: int, width: int) -> Tensor:
    """Spread token maps (R, t, h, w) over the pixels of a clip, (R, frames, height, width).

    Bicubic in space, kept between the smallest and the largest value of each map, which cubic curves would overshoot.
    In time each map is shown on the frames of its tubelet, frame f on map f * t // frames: the model sees a tubelet as
    a whole, so nothing is known in between.
    """
    if maps.dim() != 4:
        raise ValueError(f"maps must be (R, t, h, w), found {tuple(maps.shape)}")
    tubelet = torch.arange(frames, device=maps.device) * maps.shape[1] // frames
    fine = F.interpolate(maps, size=(height, width), mode="bicubic", align_corners=False)
    fine = fine.clamp(maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True))
    return fine[:, tubelet]


def shown_range(values: np.ndarray, ceiling: float = 0.99) -> tuple[float, float]:
    """The values to show as the two ends of the colour scale: the smallest, and the ``ceiling`` quantile.

    A quantile rather than the largest value, which one token in a thousand may hold while all others would be dark;
    values above it show as the top colour.
    """
    return float(values.min()), float(np.quantile(values, ceiling, method="nearest"))


def _check_numbers(what: str, found: Sequence[int], count: int) -> None:
    if not found:
        raise ValueError(f"{what}s: found none, must name at least one of 0 to {count - 1}")
    for number in found:
        if not isinstance(number, Integral) or not 0 <= number < count:
            raise ValueError(f"{what}s: found {number}, must be from 0 to {count - 1}: the model has {count} {what}s")
