"""The exchange as a subject of measurement: its shapes, inputs, float64 solution and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lookupvivit import kernels
from lookupvivit.kernels import reference

RESULTS = ("gathered", "infused", "d_q", "d_k", "d_v", "d_w")
Exchange = Callable[..., tuple[Tensor, Tensor]]  # of q, k, v, w and a number


@dataclass(frozen=True)
class Shape:
    """Sizes of an exchange.

    Attributes:
        name: compressed size and batch.
        batch, heads: B, H.
        m, n: numbers of compressed and lookup tokens.
        d: width of a head.
    """

    name: str
    batch: int
    heads: int
    m: int
    n: int
    d: int

    @property
    def pairs(self) -> int:
        """The number of heads of all samples."""
        return self.batch * self.heads

    @property
    def weights(self) -> int:
        """The number of elements of A."""
        return self.pairs * self.m * self.n

    def inputs(self, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """q, k, v, w, g, h of `random_inputs` on a device."""
        return random_inputs(self.batch, self.heads, self.m, self.n, self.d, dtype, device=device)


VIDEO = {"8x9x9": 648, "16x8x8": 1024, "16x9x9": 1296}  # (t, h, w) compressed tokens, and M
IMAGE = {"3x3": 9, "5x5": 25, "7x7": 49, "10x10": 100}


def shapes_to_measure(dry_run: bool) -> list[Shape]:
    """Shapes of LookupViT-B, the most important first."""
    if dry_run:
        return [Shape("tiny x1", 1, 2, 21, 35, 16), Shape("tiny x2", 2, 2, 9, 20, 16)]
    video = [Shape(f"{name} x{batch}", batch, 12, m, 3136, 64) for batch in (8, 1) for name, m in VIDEO.items()]
    image = [Shape(f"{name} x{batch}", batch, 12, m, 196, 64) for batch in (64, 1) for name, m in IMAGE.items()]
    return video + image


def random_inputs(
    b: int,
    h: int,
    m: int,
    n: int,
    d: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """q, k, v, w and incoming gradients g, h of both results; (B, H, tokens, d) as a model splits them from a width."""
    generator = torch.Generator(device).manual_seed(seed)

    def tokens(count: int) -> Tensor:
        drawn = torch.randn(b, count, h * d, generator=generator, dtype=torch.float64, device=device).to(dtype)
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


def errors(inputs: list[Tensor], exact_on: str = "cpu") -> dict[str, float]:
    """Relative errors, in norm, of the chosen implementation against the reference in float64 on the same inputs.

    Args:
        exact_on: the device that computes in float64.
    """
    exact = solve(reference_exchange, [x.double().to(exact_on) for x in inputs])
    computed = solve(dispatched_exchange, inputs)
    return {name: relative_error(a, b) for name, a, b in zip(RESULTS, computed, exact, strict=True)}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """In norm; ``expected`` may be on another device and in another dtype."""
    expected = expected.double()
    return ((found.to(expected) - expected).norm() / expected.norm()).item()


# Cost of each direction: matrix products of size M x N x d, tensors of M and of N tokens that are read or written, and
# exponentials per element of A. A direction of its own recomputes A, which takes one product. The gradients of q, k and
# v need two products for each direction's scores and results, and one for the gather's values.
PRODUCTS = {"gather": 2, "gather_again": 2, "infuse": 2, "backward": 6}
TOKENS = {"gather": (2, 2), "gather_again": (2, 2), "infuse": (2, 2), "backward": (6, 5)}


def flops(direction: str, shape: Shape) -> int:
    """FLOPs of the matrix products, two per multiply-add."""
    return 2 * PRODUCTS[direction] * shape.weights * shape.d


def bytes_moved(direction: str, shape: Shape, dtype: torch.dtype) -> int:
    """Bytes that have to be read or written at least; L is float32."""
    compressed, lookup = TOKENS[direction]
    vectors = (compressed * shape.m + lookup * shape.n) * shape.d * dtype.itemsize
    return shape.pairs * (vectors + 4 * shape.m)
