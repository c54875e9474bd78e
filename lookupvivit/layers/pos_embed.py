"""Initial values of the learned position embeddings, (1, t, h, w, D) for a token grid (t, h, w)."""

from __future__ import annotations

import torch
from torch import Tensor

from lookupvivit.sizes import Size


def normal_positions(grid: Size, width: int) -> Tensor:
    """N(0, 0.02), as in ViViT."""
    return torch.randn(1, *grid, width) * 0.02


def sincos_positions(grid: Size, width: int, scale: float = 0.4) -> Tensor:
    """Sines and cosines of the three coordinates, so that neighbours have similar embeddings from the start.

    A quarter of the features encodes time; height and width share the rest. Wavelengths range from 2 pi to 200 pi
    tokens. With random embeddings, a model must first learn where its tokens are, which takes most of the training on a
    small dataset; big_vision offers fixed sine-cosine embeddings as well.

    Args:
        scale: amplitude; the default is that of an embedded tubelet.
    """
    features_t = width // 4
    features_h = (width - features_t) // 2
    features_w = width - features_t - features_h
    t, h, w = grid
    along_t = _waves(t, features_t).reshape(t, 1, 1, -1).expand(t, h, w, -1)
    along_h = _waves(h, features_h).reshape(1, h, 1, -1).expand(t, h, w, -1)
    along_w = _waves(w, features_w).reshape(1, 1, w, -1).expand(t, h, w, -1)
    return scale * torch.cat([along_t, along_h, along_w], dim=-1)[None]  # (1, t, h, w, D)


def _waves(count: int, features: int) -> Tensor:
    """Sines, then cosines, of ``count`` positions: (count, features)."""
    num_frequencies = (features + 1) // 2
    frequencies = 100.0 ** -(torch.arange(num_frequencies) / num_frequencies)
    angles = torch.arange(count)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :features]


def initial_positions(kind: str, grid: Size, width: int) -> Tensor:
    """Initial values of one of `POSITION_INITS`; on the meta device, which has no values, only their shape."""
    if torch.get_default_device().type == "meta":
        return torch.empty(1, *grid, width)
    return POSITION_INITS[kind](grid, width)


def unit_sincos_positions(grid: Size, width: int) -> Tensor:
    """`sincos_positions` of amplitude 1, with which models learn in what order things happen several times sooner."""
    return sincos_positions(grid, width, scale=1.0)


POSITION_INITS = {"normal": normal_positions, "sincos": sincos_positions, "unit_sincos": unit_sincos_positions}
