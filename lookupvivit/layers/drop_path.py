"""Stochastic depth (Huang et al.; "stochastic droplayer" in ViViT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch for a whole sample with probability ``rate`` while training.

    Kept branches are not rescaled by 1 / (1 - rate): scenic's ViViT does not either, and the SSv2 recipe
    was tuned that way (timm rescales).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return branch
        keep = torch.rand(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device) >= self.rate
        return branch * keep

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
