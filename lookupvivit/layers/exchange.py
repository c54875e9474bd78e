"""Multi-Head Bidirectional Cross-attention (MHBC), Algorithms 1 and 2 of the paper.

The compressed tokens query the lookup tokens; the attention A is computed once and serves both directions.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from lookupvivit import kernels


def _projection(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class Gather(nn.Module):
    """MHBC l->p: the compressed tokens look at the lookup tokens (Algorithm 1).

    Queries and keys are layer-normed after their projection and over the full width, values are not. The output
    projection is not printed in Algorithm 1, but Eq. 6 and every GFLOPs figure of the paper contain it.
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (_projection(width) for _ in range(4))
        self.q_norm = nn.LayerNorm(width, eps=eps)
        self.k_norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self, compressed: Tensor, lookup: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, kernels.Weights]:
        """compressed (B, M, D), lookup (B, N, D) -> update of the compressed tokens (B, M, D), the weights A."""
        q = _split(self.q_norm(self.q(compressed)), self.heads)
        k = _split(self.k_norm(self.k(lookup)), self.heads)
        v = _split(self.v(lookup), self.heads)
        gathered, weights = kernels.gather(q, k, v, return_attention)
        return self.out(_merge(gathered)), weights


class Infuse(nn.Module):
    """MHBC p->l: the lookup tokens receive from those that looked at them (Algorithm 2).

    The projected values are layer-normed, as printed; the output projection is there for the reason given in
    :class:`Gather`.
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.v, self.out = _projection(width), _projection(width)
        self.v_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, compressed: Tensor, weights: kernels.Weights) -> Tensor:
        """compressed (B, M, D), the weights A of :class:`Gather` -> update of the lookup tokens (B, N, D)."""
        v = _split(self.v_norm(self.v(compressed)), self.heads)
        return self.out(_merge(kernels.infuse(weights, v)))


def _split(tokens: Tensor, heads: int) -> Tensor:
    return rearrange(tokens, "b n (h d) -> b h n d", h=heads)


def _merge(tokens: Tensor) -> Tensor:
    return rearrange(tokens, "b h n d -> b n (h d)")
