"""Stochastic depth (Huang et al.; "stochastic droplayer" in ViViT)."""

from __future__ import annotations

import torch
import torch.fx
from torch import Tensor, nn


class DropPath(nn.Module):
    """During training, drop a residual branch of a whole sample with probability ``rate``.

    Departure from timm: kept branches are not rescaled by 1 / (1 - rate). Neither does scenic's ViViT rescale them,
    with which the SSv2 recipe was tuned.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return branch
        return _drop_samples(branch, self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def _drop_samples(branch: Tensor, rate: float) -> Tensor:
    one_per_sample = (branch.shape[0], *[1] * (branch.dim() - 1))
    keep = torch.rand(one_per_sample, device=branch.device) >= rate
    return branch * keep


torch.fx.wrap("_drop_samples")  # recorded by `torch.fx` as it is


def drop_path_rates(last: float, depth: int) -> list[float]:
    """One rate per block, increasing linearly from 0 to ``last``: ``last * l / (depth - 1)`` for block l, as in scenic.

    The ViViT paper (Eq. 10) prints l / depth.
    """
    return [last * block / max(1, depth - 1) for block in range(depth)]
