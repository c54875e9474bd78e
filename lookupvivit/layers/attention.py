"""Multi-head self-attention of the compressed stream (Algorithm 3)."""

from __future__ import annotations

import torch.fx
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

torch.fx.wrap("rearrange")  # recorded by `torch.fx` as it is


class SelfAttention(nn.Module):
    """Softmax self-attention with one joint projection to queries, keys and values.

    Args:
        width: D.
        num_heads: H, a divisor of D.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        for square in self.qkv.weight.chunk(3):  # Xavier bounds of three D x D kernels, not of one D x 3D kernel
            nn.init.xavier_uniform_(square)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, M, D) -> (B, M, D)."""
        q, k, v = self.project(tokens)
        return self.unite(F.scaled_dot_product_attention(q, k, v))

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, M, D) -> queries, keys and values of the heads, (B, H, M, d) each."""
        q, k, v = rearrange(self.qkv(tokens), "b m (three h d) -> three b h m d", three=3, h=self.num_heads)
        return q, k, v

    def unite(self, mixed: Tensor) -> Tensor:
        """Outputs of the heads (B, H, M, d) -> (B, M, D)."""
        return self.out(rearrange(mixed, "b h m d -> b m (h d)"))

    def received(self, tokens: Tensor, every: int) -> Tensor:
        """The mean attention of every n-th token (B, M, D) to each token, (B, M)."""
        q, k, _ = self.project(tokens)
        attention = (q[:, :, ::every] @ k.mT * k.shape[-1] ** -0.5).softmax(-1)  # (B, H, M / n, M)
        return attention.mean(dim=(1, 2))
