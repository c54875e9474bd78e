"""The two-layer perceptron of both streams."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Sequential):
    """width -> hidden -> out (width by default) with GELU (tanh by default: the JAX parents' approximation)."""

    def __init__(self, width: int, hidden: int, gelu: str = "tanh", out: int | None = None) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(approximate=gelu), nn.Linear(hidden, out or width))
        for linear in (self[0], self[2]):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., out)."""
        return super().forward(tokens)
