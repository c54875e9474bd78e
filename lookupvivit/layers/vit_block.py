"""The pre-norm ViT block (Algorithm 3; Dosovitskiy et al.)."""

from __future__ import annotations

from torch import Tensor, nn

from lookupvivit.layers.attention import SelfAttention
from lookupvivit.layers.drop_path import DropPath
from lookupvivit.layers.mlp import MLP


class ViTBlock(nn.Module):
    """Self-attention and a wide MLP, each on normed tokens and added to the stream.

    Args:
        width, heads: D and H.
        mlp_ratio: p, hidden width of the MLP over D.
        drop_path: chance of leaving a branch out for a sample while training.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, drop_path: float = 0.0, eps: float = 1e-6, gelu: str = "tanh"
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = SelfAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, round(mlp_ratio * width), gelu)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, M, D) -> (B, M, D)."""
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens)))
        return tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))
