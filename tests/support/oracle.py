"""Shared by the tests of every exchange implementation: random inputs, the float64 solution and the relative errors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lookupvivit import kernels
from lookupvivit.kernels import reference

RESULTS = ("gathered", "infused", "d_q", "d_k", "d_v", "d_w")
Exchange = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def random_inputs(
    b: int, h: int, m: int, n: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    """q, k, v, w and incoming gradients g, h of both results; (B, H, tokens, d) as a model splits them from a width."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> Tensor:
        drawn = torch.randn(b, count, h * d, generator=generator, dtype=torch.float64).to(dtype)
        return drawn.unflatten(-1, (h, d)).transpose(1, 2)

    return [tokens(count) for count in (m, n, n, m, m, n)]


def solve(exchange: Exchange, inputs: list[Tensor], mixing: float = 0.3) -> list[Tensor]:
    """Both results and the gradients of q, k, v and w, in the order of `RESULTS`."""
    q, k, v, w, g, h = inputs
    leaves = [x.detach().requires_grad_() for x in (q, k, v, w)]  # not cloned: a clone would be dense
    gathered, infused = exchange(*leaves, mixing)
    return [gathered, infused, *torch.autograd.grad((gathered, infused), leaves, (g, h))]


def reference_exchange(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mixing: float) -> tuple[Tensor, Tensor]:
    """Gather, then infuse values that depend on the gathered tokens, as in a block."""
    gathered, attention = reference.gather(q, k, v)
    return gathered, reference.infuse(attention, w + mixing * gathered)


def dispatched_exchange(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mixing: float) -> tuple[Tensor, Tensor]:
    """The same with the implementation that ``kernels.use`` chose."""
    gathered, weights = kernels.gather(q, k, v)
    return gathered, kernels.infuse(weights, w + mixing * gathered)


def errors(inputs: list[Tensor]) -> dict[str, float]:
    """Relative errors, in norm, of the chosen implementation against the reference in float64 on the same inputs."""
    exact = solve(reference_exchange, [x.double().cpu() for x in inputs])
    computed = solve(dispatched_exchange, inputs)
    return {
        name: ((a.double().cpu() - b).norm() / b.norm()).item()
        for name, a, b in zip(RESULTS, computed, exact, strict=True)
    }
