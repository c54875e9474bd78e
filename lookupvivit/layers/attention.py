"""Multi-head self-attention of the compressed stream (Algorithm 3)."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Softmax attention of a token set with itself, query, key and value from one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        for square in self.qkv.weight.chunk(3):  # three square kernels, not one wide one
            nn.init.xavier_uniform_(square)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, M, D) -> (B, M, D)."""
        q, k, v = rearrange(self.qkv(tokens), "b m (three h d) -> three b h m d", three=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, H, M, d)
        return self.out(rearrange(mixed, "b h m d -> b m (h d)"))
