"""Where the compressed tokens start: the resampling of Eq. 1, and what Table 5 puts in its place."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lookupvivit.layers.resample import resample

Size = tuple[int, int, int]  # (t, h, w)


def require_within(size: Size, grid: Size, what: str = "compressed_size") -> None:
    """ValueError where there would be more compressed than lookup tokens along any side; ``what`` names the size."""
    if any(asked > there for asked, there in zip(size, grid, strict=True)):
        raise ValueError(
            f"{what}: found {list(size)} (t, h, w), must be at most {list(grid)} (t, h, w), the grid of lookup tokens: "
            "compressed tokens are resampled from these, and more of them would hold nothing new"
        )


class Resample(nn.Module):
    """Eq. 1 and 2: parameter-free, to any size. T is linear: T(tokens) + T(positions) = T(tokens + positions)."""

    def __init__(self, grid: Size, size: Size, width: int, antialias: bool) -> None:
        super().__init__()
        self.antialias = antialias

    def forward(self, lookup: Tensor, size: Size) -> Tensor:
        """(B, t, h, w, D) -> (B, *size, D)."""
        return resample(lookup, size, self.antialias)


class RandomTokens(nn.Module):
    """Table 5, "Random Primary Tokens": learned start values, N(0, 0.02), the same for every input."""

    def __init__(self, grid: Size, size: Size, width: int, antialias: bool) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(1, *size, width) * 0.02)

    def forward(self, lookup: Tensor, size: Size) -> Tensor:
        """(B, t, h, w, D) -> (B, *size, D)."""
        own = tuple(self.tokens.shape[1:4])
        if size != own:
            raise ValueError(f"compressed_init='random' has learned {own} compressed tokens, found a call for {size}")
        return self.tokens.expand(lookup.shape[0], -1, -1, -1, -1)


class Reduce(nn.Module):
    """Table 5, "No Lookup Tokens": one learned kernel per channel from the token grid to the compressed size.

    The paper says convolution and prints 4.5 GFLOPs; a dense 3x3 kernel would make it 4.75. It starts as the mean.
    """

    def __init__(self, grid: Size, size: Size, width: int, antialias: bool) -> None:
        super().__init__()
        if any(target > source for source, target in zip(grid, size, strict=True)):
            raise ValueError(f"compressed_init='conv' reduces a token grid of {grid}; compressed_size {size} is larger")
        stride = tuple(source // target for source, target in zip(grid, size, strict=True))
        kernel = tuple(n - (m - 1) * step for n, m, step in zip(grid, size, stride, strict=True))
        self.size = size
        self.reduction = nn.Conv3d(width, width, kernel, stride, groups=width)
        nn.init.constant_(self.reduction.weight, 1 / math.prod(kernel))
        nn.init.zeros_(self.reduction.bias)

    def forward(self, lookup: Tensor, size: Size) -> Tensor:
        """(B, t, h, w, D) -> (B, *size, D)."""
        compressed = torch.movedim(self.reduction(torch.movedim(lookup, -1, 1)), 1, -1)
        found = tuple(compressed.shape[1:4])
        if size != self.size or found != size:
            raise ValueError(
                f"compressed_init='conv' reduces to {self.size} compressed tokens only, found a call for "
                f"{size} and an input that gives {found}"
            )
        return compressed


COMPRESSED_INITS = {"resample": Resample, "random": RandomTokens, "conv": Reduce}
