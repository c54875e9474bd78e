"""The pre-norm ViT block (Algorithm 3; Dosovitskiy et al.)."""

from __future__ import annotations

from torch import Tensor, nn

from lookupvivit.layers.attention import SelfAttention
from lookupvivit.layers.drop_path import DropPath
from lookupvivit.layers.mlp import MLP


class ViTBlock(nn.Module):
    """Self-attention and an MLP, each on normed tokens and with a residual connection.

    Args:
        width, num_heads: D and H.
        mlp_ratio: p, the hidden width of the MLP divided by D.
        drop_path: probability of dropping each branch of a sample during training.
        eps, gelu: LayerNorm epsilon and GELU form; the defaults are those of ViT and ViViT in JAX.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        gelu: str = "tanh",
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = SelfAttention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, round(mlp_ratio * width), gelu)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, M, D) -> (B, M, D)."""
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens)))
        return tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))
