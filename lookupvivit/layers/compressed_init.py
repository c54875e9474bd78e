"""How compressed tokens are created: resampling (Eq. 1), or one of the ablations of Table 5.

`COMPRESSED_INITS` names them.
"""

from __future__ import annotations

import math

import torch
import torch.fx
from torch import Tensor, nn

from lookupvivit.layers.resample import resample
from lookupvivit.sizes import Size, as_size, format_size


def require_size_within(size: Size, grid: Size, key: str = "compressed_size") -> None:
    """Check that there are at most as many compressed as lookup tokens along every axis.

    Args:
        size, grid: (t, h, w) of the compressed and of the lookup tokens.
        key: name of the size in the message.

    Raises:
        ValueError: an axis of ``size`` is longer. Compressed tokens are resampled from lookup tokens, so that more of
            them would contain nothing new.
    """
    if any(requested > available for requested, available in zip(size, grid, strict=True)):
        raise ValueError(
            f"{key}: found {format_size(size)} (TxHxW), expected at most {format_size(grid)}, the grid of lookup tokens"
        )


class CompressedInit(nn.Module):
    """Maps lookup tokens (B, t, h, w, D) and a size to compressed tokens (B, *size, D).

    Subclasses are constructed with the lookup grid (t, h, w), the compressed size (t, h, w), the width D and
    ``antialias``.

    Attributes:
        any_size: whether a call may request another size than the one of the constructor.
        is_linear: whether it is a linear map over the grid, the same for every channel. Token keeping requires this,
            because it applies the map to pixels (B, t, h, w, P) and to positions (1, t, h, w, D).
        no_weight_decay: names of own parameters without weight decay, in addition to all 1-D parameters.
    """

    any_size = False
    is_linear = False
    no_weight_decay: tuple[str, ...] = ()


class Resample(CompressedInit):
    """Eq. 1 and 2: resize the lookup tokens to any size, without parameters.

    The lookup tokens already contain their positions. As T is linear, T(tokens) + T(positions) = T(tokens + positions).
    """

    any_size = is_linear = True

    def __init__(self, grid: Size, size: Size, width: int, antialias: bool) -> None:
        super().__init__()
        self.antialias = antialias

    def forward(self, lookup: Tensor, size: Size) -> Tensor:
        """(B, t, h, w, D) -> (B, *size, D)."""
        return resample(lookup, size, self.antialias)


class RandomTokens(CompressedInit):
    """Table 5, "Random Primary Tokens": learned tokens, initially N(0, 0.02), the same for every input."""

    no_weight_decay = ("tokens",)

    def __init__(self, grid: Size, size: Size, width: int, antialias: bool) -> None:
        super().__init__()
        self.size = size
        self.tokens = nn.Parameter(torch.randn(1, *size, width) * 0.02)

    def forward(self, lookup: Tensor, size: Size) -> Tensor:
        """(B, t, h, w, D) -> (B, *size, D)."""
        if size != self.size:
            raise ValueError(
                f"compressed_size: found {format_size(size)}, expected {format_size(self.size)}, for which "
                "compressed_init='random' has learned tokens"
            )
        return self.tokens.expand(lookup.shape[0], -1, -1, -1, -1)


class ConvReduction(CompressedInit):
    """Table 5, "No Lookup Tokens": a strided convolution reduces the lookup tokens to the compressed size.

    It starts as the mean over its window.
    """

    def __init__(self, grid: Size, size: Size, width: int, antialias: bool) -> None:
        super().__init__()
        require_size_within(size, grid)
        stride = as_size([source // target for source, target in zip(grid, size, strict=True)])
        kernel = as_size([n - (m - 1) * step for n, m, step in zip(grid, size, stride, strict=True)])
        self.size = size
        # Departure from the paper: it prints "convolution" and 4.5 GFLOPs. Only a depthwise kernel costs that; a dense
        # 3 x 3 kernel would cost 4.75.
        self.reduction = nn.Conv3d(width, width, kernel, stride, groups=width)
        nn.init.constant_(self.reduction.weight, 1 / math.prod(kernel))
        if self.reduction.bias is not None:
            nn.init.zeros_(self.reduction.bias)

    def forward(self, lookup: Tensor, size: Size) -> Tensor:
        """(B, t, h, w, D) -> (B, *size, D)."""
        channels_first = torch.movedim(lookup, -1, 1)  # (B, D, t, h, w)
        compressed = torch.movedim(self.reduction(channels_first), 1, -1)  # (B, tp, hp, wp, D)
        _require_reduced_size(compressed, size, self.size)
        return compressed


def _require_reduced_size(compressed: Tensor, size: Size, expected: Size) -> None:
    reduced_size = tuple(compressed.shape[1:4])
    if size != expected or reduced_size != size:
        raise ValueError(
            f"compressed_size: found {format_size(size)} and an input that is reduced to "
            f"{format_size(as_size(reduced_size))}, expected {format_size(expected)} for both: "
            "compressed_init='conv' has one size"
        )


torch.fx.wrap("_require_reduced_size")  # recorded by `torch.fx` as it is: what it does depends on the shape


COMPRESSED_INITS: dict[str, type[CompressedInit]] = {
    "resample": Resample,
    "random": RandomTokens,
    "conv": ConvReduction,
}
