"""The two-layer perceptron of both streams."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear, GELU, Linear.

    Args:
        width, hidden: features of the input and between the layers.
        gelu: "tanh", the approximation of ViT and ViViT in JAX, or "none", the exact form.
        out: features of the output, ``width`` by default.
    """

    def __init__(self, width: int, hidden: int, gelu: str = "tanh", out: int | None = None) -> None:
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, out or width)
        super().__init__(first, nn.GELU(approximate=gelu), second)
        for linear in (first, second):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., out)."""
        return super().forward(tokens)
