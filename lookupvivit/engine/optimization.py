"""Schedule, parameter groups, optimizer and loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lookupvivit.config import OptimConfig


def learning_rate(step: int, total_steps: int, warmup_steps: int, base: float) -> float:
    """Linear warmup, then a cosine to zero, at an optimizer step counted from 0.

    lr(t) = base * min(1, t / w) * (1 + cos(pi * max(0, t - w) / (T - w))) / 2, as scenic's compound schedule; the
    very first step therefore has lr 0 when there is a warmup.
    """
    warmup = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    progress = max(0, step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: kernels decay; biases, norms and what `model.no_weight_decay()` names do not."""
    spared = model.no_weight_decay()
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (others if parameter.dim() < 2 or name in spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW, as the configuration says."""
    groups = parameter_groups(model, config.weight_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum_k targets_k log softmax(logits)_k, in float32; both (B, K)."""
    return -(targets * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()
