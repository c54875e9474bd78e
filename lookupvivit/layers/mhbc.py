"""Multi-Head Bidirectional Cross-attention (MHBC), Algorithms 1 and 2 of the paper.

The compressed tokens attend to the lookup tokens (`Gather`). The attention matrix A is computed once and serves both
directions: transposed, it carries the refined compressed tokens back to the lookup tokens (`Infuse`).

**Folding.** Each direction projects all N lookup tokens: to the values before A, and after A^T to the output. Matrix
products are associative, so that a head's part of either projection can act on the M compressed tokens instead:

    A (z W + b) = (A z) W + b          (the rows of A sum to one)
    (A^T v) W   = A^T (v W)

This takes H M N D + M D^2 multiplications instead of N D^2 + M N D: half as many for 25 compressed tokens, 196 lookup
tokens and heads of width 64. `kernels.should_fold` decides. A projection that was replaced, wrapped or quantised after
construction, or that has hooks, is not folded.
"""

from __future__ import annotations

import torch
import torch.fx
from einops import rearrange
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lookupvivit import kernels

torch.fx.wrap("rearrange")  # recorded by `torch.fx` as it is


class Gather(nn.Module):
    """MHBC l->p: the compressed tokens attend to the lookup tokens (Algorithm 1).

    As printed, queries and keys are layer-normed after their projection, over the full width, and values are not.

    Args:
        width, num_heads: D and H.
        eps: LayerNorm epsilon.
    """

    def __init__(self, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v = _projection(width), _projection(width), _projection(width)
        # Departure from Algorithm 1: it prints no output projection, but Eq. 6 and all GFLOPs of the paper contain it.
        self.out = _projection(width)
        self.q_norm = nn.LayerNorm(width, eps=eps)
        self.k_norm = nn.LayerNorm(width, eps=eps)

    def forward(
        self, compressed: Tensor, lookup: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, kernels.Weights]:
        """compressed (B, M, D), lookup (B, N, D) -> update of the compressed tokens (B, M, D), weights for `Infuse`."""
        q = _split_heads(self.q_norm(self.q(compressed)), self.num_heads)  # (B, H, M, d)
        k = _split_heads(self.k_norm(self.k(lookup)), self.num_heads)  # (B, H, N, d)
        weights: kernels.Weights
        if not return_attention and kernels.should_fold(q, k) and _is_untouched(self.v):
            weights = kernels.fold(q, k)
            gathered = gather_folded(self.v, lookup, weights.attention)  # (B, H, M, d)
        else:
            v = _split_heads(self.v(lookup), self.num_heads)  # (B, H, N, d)
            gathered, weights = kernels.gather(q, k, v, return_attention)  # (B, H, M, d)
        return self.out(_merge_heads(gathered)), weights


class Infuse(nn.Module):
    """MHBC p->l: the same attention, transposed, updates the lookup tokens (Algorithm 2).

    As printed, the projected values are layer-normed and A^T is not renormalised.

    Args:
        width, num_heads: D and H.
        eps: LayerNorm epsilon.
    """

    def __init__(self, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        # Departure from Algorithm 2: it prints no output projection either; see `Gather`.
        self.v, self.out = _projection(width), _projection(width)
        self.v_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, compressed: Tensor, weights: kernels.Weights) -> Tensor:
        """compressed (B, M, D), weights of `Gather` -> update of the lookup tokens (B, N, D)."""
        v = _split_heads(self.v_norm(self.v(compressed)), self.num_heads)  # (B, H, M, d)
        if isinstance(weights, kernels.FoldedWeights) and _is_untouched(self.out):
            return infuse_folded(self.out, v, weights.attention)
        return self.out(_merge_heads(kernels.infuse(weights, v)))  # (B, H, N, d) -> (B, N, D)


def _projection(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    return rearrange(tokens, "b n (h d) -> b h n d", h=num_heads)


def _merge_heads(tokens: Tensor) -> Tensor:
    return rearrange(tokens, "b h n d -> b n (h d)")


# Folded projections. The layers are plain `nn.Linear`, and are called as such wherever anything but this module deals
# with them: other libraries select layers by class and observe inputs and results in hooks.


def gather_folded(projection: nn.Linear, lookup: Tensor, attention: Tensor) -> Tensor:
    """Lookup tokens (B, N, D), A (B, H, M, N) -> A v (B, H, M, d); every head has its columns of the projection."""
    num_heads = attention.shape[1]
    mixed = attention.flatten(1, 2) @ lookup  # (B, H M, N) (B, N, D) -> (B, H M, D)
    mixed = mixed.unflatten(1, (num_heads, -1))  # (B, H, M, D)
    weight = projection.weight.unflatten(0, (num_heads, -1))  # (H, d, D)
    gathered = torch.einsum("bhmc,hdc->bhmd", mixed, weight)
    return gathered + projection.bias.to(gathered.dtype).unflatten(0, (num_heads, 1, -1))


def infuse_folded(projection: nn.Linear, values: Tensor, attention: Tensor) -> Tensor:
    """Values v (B, H, M, d), A (B, H, M, N) -> update (B, N, D); every head has its rows of the projection."""
    weight = projection.weight.unflatten(1, (attention.shape[1], -1))  # (D, H, d)
    projected = torch.einsum("bhmd,chd->bhmc", values, weight).flatten(1, 2)  # (B, H M, D)
    return torch.baddbmm(projection.bias, attention.flatten(1, 2).transpose(1, 2), projected)  # (B, N, D)


def _is_untouched(projection: nn.Module) -> bool:
    """Whether the projection can be folded: nobody replaced, wrapped, quantised, sharded or observes it.

    Hooks expect a call as a linear layer. Pruning computes the weight in one, ZeRO-3 fetches it.
    """
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return (
        type(projection) is nn.Linear
        and projection.bias is not None
        and not any(getattr(projection, name) for name in hooks)
        and not is_traceable_wrapper_subclass(projection.weight)
    )
