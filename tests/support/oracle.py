"""What the tests of every implementation share: random problems, the float64 answer, and how far an answer is off."""

from __future__ import annotations

import torch
from torch import Tensor

from lookupvivit import kernels
from lookupvivit.kernels import reference

NAMES = ("gathered", "infused", "d_q", "d_k", "d_v", "d_w")


def problem(b: int, h: int, m: int, n: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    """q, k, v, w as a model makes them, heads split from a width, and incoming gradients of both results."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> Tensor:
        drawn = torch.randn(b, count, h * d, generator=generator, dtype=torch.float64).to(dtype)
        return drawn.unflatten(-1, (h, d)).transpose(1, 2)

    return [tokens(count) for count in (m, n, n, m, m, n)]


def solve(exchange, tensors: list[Tensor], mixing: float = 0.3) -> list[Tensor]:
    """Both results and all gradients; w depends on the gathered tokens, as in a block."""
    q, k, v, w, g, h = tensors
    leaves = [x.detach().requires_grad_() for x in (q, k, v, w)]  # no clone: it would be dense
    gathered, infused = exchange(*leaves, mixing)
    return [gathered, infused, *torch.autograd.grad((gathered, infused), leaves, (g, h))]


def plain(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mixing: float) -> tuple[Tensor, Tensor]:
    gathered, attention = reference.gather(q, k, v)
    return gathered, reference.infuse(attention, w + mixing * gathered)


def chosen(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mixing: float) -> tuple[Tensor, Tensor]:
    gathered, weights = kernels.gather(q, k, v)
    return gathered, kernels.infuse(weights, w + mixing * gathered)


def errors(tensors: list[Tensor]) -> dict[str, float]:
    """Relative error, in norm, of what is chosen against the reference in float64 on the same inputs."""
    exact = solve(plain, [x.double().cpu() for x in tensors])
    found = solve(chosen, tensors)
    return {
        name: ((a.double().cpu() - b).norm() / b.norm()).item() for name, a, b in zip(NAMES, found, exact, strict=True)
    }
