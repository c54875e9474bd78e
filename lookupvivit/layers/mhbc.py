"""Multi-Head Bidirectional Cross-attention (MHBC), Algorithms 1 and 2 of the paper.

The compressed tokens query the lookup tokens; the attention A is computed once and serves both directions.

**Folding.** Each direction projects all N lookup tokens once: their values before A, what they receive after A^T.
Matrix products associate, so a head's share of either projection can as well act on the M compressed tokens' side:

    A (z W + b) = (A z) W + b          (the rows of A sum to one)
    (A^T v) W   = A^T (v W)

That takes H M N D + M D^2 multiplications instead of N D^2 + M N D: half of them for 25 compressed tokens of 196 in
heads 64 wide. `kernels.should_fold` knows when. Projections that are no longer what they were built as are not folded.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lookupvivit import kernels


def _projection(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    _initialize(linear)
    return linear


def _initialize(linear: nn.Linear) -> None:
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)


class _FoldableProjection(nn.Linear):
    """D -> D, whose heads can be applied one by one.

    Called as a module where folded, too: whoever fetches or watches weights as modules are called (ZeRO 3, hooks) sees
    it, with inputs of another shape.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, width)
        self.heads = heads
        _initialize(self)


class GatherValues(_FoldableProjection):
    """The values of a gather, W_v: every head has its columns of the output."""

    def forward(self, lookup: Tensor, attention: Tensor | None = None) -> Tensor:
        """lookup (B, N, D) -> values v (B, N, D); with A (B, H, M, N) folded into A v (B, H, M, d)."""
        if attention is None:
            return super().forward(lookup)
        mixed = (attention.flatten(1, 2) @ lookup).unflatten(1, (self.heads, -1))
        read = torch.einsum("bhmc,hdc->bhmd", mixed, self.weight.unflatten(0, (self.heads, -1)))
        return read + self.bias.to(read.dtype).unflatten(0, (self.heads, 1, -1))


class InfuseOutput(_FoldableProjection):
    """The output projection of an infusion, W_o: every head has its rows of the input."""

    def forward(self, tokens: Tensor, attention: Tensor | None = None) -> Tensor:
        """A^T v (B, N, D) -> update (B, N, D); with A (B, H, M, N) folded, from the values v (B, H, M, d)."""
        if attention is None:
            return super().forward(tokens)
        handed = torch.einsum("bhmd,chd->bhmc", tokens, self.weight.unflatten(1, (self.heads, -1)))
        return torch.baddbmm(self.bias, attention.flatten(1, 2).transpose(1, 2), handed.flatten(1, 2))


class Gather(nn.Module):
    """MHBC l->p: the compressed tokens look at the lookup tokens (Algorithm 1).

    Queries and keys are layer-normed after their projection and over the full width, values are not. The output
    projection is not printed in Algorithm 1, but Eq. 6 and every GFLOPs figure of the paper contain it.
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = _projection(width), _projection(width), GatherValues(width, heads)
        self.out = _projection(width)
        self.q_norm = nn.LayerNorm(width, eps=eps)
        self.k_norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self, compressed: Tensor, lookup: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, kernels.Weights]:
        """compressed (B, M, D), lookup (B, N, D) -> update of the compressed tokens (B, M, D), the weights A."""
        q = _split(self.q_norm(self.q(compressed)), self.heads)
        k = _split(self.k_norm(self.k(lookup)), self.heads)
        if not return_attention and _is_as_built(self.v, GatherValues) and kernels.should_fold(q, k):
            weights = kernels.fold(q, k)
            gathered = self.v(lookup, weights.attention)
        else:
            gathered, weights = kernels.gather(q, k, _split(self.v(lookup), self.heads), return_attention)
        return self.out(_merge(gathered)), weights


class Infuse(nn.Module):
    """MHBC p->l: the lookup tokens receive from those that looked at them (Algorithm 2).

    The projected values are layer-normed, as printed; the output projection is there for the reason given in
    :class:`Gather`.
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.v, self.out = _projection(width), InfuseOutput(width, heads)
        self.v_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, compressed: Tensor, weights: kernels.Weights) -> Tensor:
        """compressed (B, M, D), the weights A of :class:`Gather` -> update of the lookup tokens (B, N, D)."""
        v = _split(self.v_norm(self.v(compressed)), self.heads)
        if isinstance(weights, kernels.FoldedWeights) and _is_as_built(self.out, InfuseOutput):
            return self.out(v, weights.attention)
        return self.out(_merge(kernels.infuse(weights, v)))


def _is_as_built(projection: nn.Module, kind: type[_FoldableProjection]) -> bool:
    """Neither replaced or wrapped (LoRA) nor with weights of another kind (quantization, sharding)."""
    return isinstance(projection, kind) and not is_traceable_wrapper_subclass(projection.weight)


def _split(tokens: Tensor, heads: int) -> Tensor:
    return rearrange(tokens, "b n (h d) -> b h n d", h=heads)


def _merge(tokens: Tensor) -> Tensor:
    return rearrange(tokens, "b h n d -> b n (h d)")
