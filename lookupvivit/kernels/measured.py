"""The exchange by the implementations that were fastest on this GPU (`tuned`), each direction by its own.

The signatures are those of `lookupvivit.kernels.cpu_flash`. Where nothing was measured, all functions are those of
`triton`.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from lookupvivit.kernels import flex, sdpa, tuned

# Implementations of each direction, as the table names them
IMPLEMENTATIONS = {
    "gather": ("triton", *sdpa.BACKENDS),
    "gather_again": ("triton", *sdpa.BACKENDS),
    "infuse": ("triton", "flex"),
    "backward": ("triton", *sdpa.BACKENDS),
}


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return A v (B, H, M, d) and L (B, H, M)."""
    name = tuned.fastest("gather", q, k)
    return _triton().gather(q, k, v) if name == "triton" else sdpa.gather(q, k, v, name)


def gather_again(q: Tensor, k: Tensor, lse: Tensor, v: Tensor) -> Tensor:
    """Return A v (B, H, M, d); only Triton's kernel uses the given L."""
    name = tuned.fastest("gather_again", q, k)
    return _triton().gather_again(q, k, lse, v) if name == "triton" else sdpa.gather(q, k, v, name)[0]


def infuse(q: Tensor, k: Tensor, lse: Tensor, w: Tensor) -> Tensor:
    """Return A^T w (B, H, N, d)."""
    name = tuned.fastest("infuse", q, k)
    return _triton().infuse(q, k, lse, w) if name == "triton" else flex.infuse(q, k, lse, w)


def backward(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    gathered: tuple[Tensor, Tensor, Tensor] | None,
    infused: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k and v."""
    name = tuned.fastest("backward", q, k)
    if name == "triton":
        return _triton().backward(q, k, lse, gathered, infused)
    return sdpa.backward(q, k, lse, gathered, infused, name)


def _triton() -> ModuleType:
    from lookupvivit.kernels import triton  # imports Triton, which is not installed everywhere

    return triton
