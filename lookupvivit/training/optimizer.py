"""Schedule, parameter groups, optimizer and loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
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


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Parameters by weight decay and learning rate.

    Kernels decay; biases, norms and what `model.no_weight_decay()` names do not. The learning rate of the last of
    `model.layer_groups()` (norms and heads) is the schedule's, and each group before it has ``layer_decay`` of the next
    one's (``lr_scale``; BEiT's layer-wise decay). Parameters alike in both share a group, as ZeRO shards and launches
    work per group: at most 2 x (depth + 2) of them, two without layer decay.
    """
    spared = model.no_weight_decay()
    parameters, layers = dict(model.named_parameters()), model.layer_groups()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for place, names in enumerate(layers):
        scale = layer_decay ** (len(layers) - 1 - place)
        for name in (name for name in names if parameters[name].requires_grad):
            decays = parameters[name].dim() >= 2 and name not in spared
            groups.setdefault((scale, weight_decay if decays else 0.0), []).append(parameters[name])
    return [
        {"params": members, "weight_decay": decay, "lr_scale": scale, "ema_decay": 0.0}
        for (scale, decay), members in groups.items()
    ]


def build_optimizer(model: nn.Module, config: OptimConfig, offloaded: bool = False) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW, as the configuration says."""
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    # fused is vectorised on the CPU, too, where an offloaded optimizer steps
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True if offloaded else None)


class NonFiniteGradients(FloatingPointError):
    """Gradients that are not numbers, found before they could move a weight."""


class FiniteSteps:
    """Lets an optimizer step only where all its gradients, on every rank, are finite numbers.

    DeepSpeed looks for overflow in some precisions and stages only (and then leaves the step out without a word), so
    this stands where all the others come by: at the step of the optimizer that DeepSpeed wraps, which sees the reduced
    gradients (its shard of them under ZeRO).

    Args:
        optimizer: its ``step`` is replaced.
        any_rank: whether a flag is set on any rank; collective.
        skip: leave such steps out instead of raising.

    Attributes:
        skipped: steps left out.

    Raises:
        NonFiniteGradients: in ``step``, on all ranks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, any_rank: Callable[[bool], bool], skip: bool) -> None:
        self.skipped = 0
        self._optimizer, self._step, self._any_rank, self._skip = optimizer, optimizer.step, any_rank, skip
        optimizer.step = self.step

    def step(self, *arguments: Any, **options: Any) -> Any:
        """The optimizer's step, or none."""
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = not gradients or bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all())
        if not self._any_rank(not finite):
            return self._step(*arguments, **options)
        if not self._skip:
            raise NonFiniteGradients
        self.skipped += 1
        return None


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum_k targets_k log softmax(logits)_k, in float32; both (B, K)."""
    return -(targets * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()


def sigmoid_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of the classes' binary cross-entropies, summed, in float32; both (B, K).

    Every class is a yes or no of its own (big_vision, utils.py, sigmoid_xent), so that ``targets`` in [0, 1] may be
    mixed, smoothed or several at once; they need not add up to 1.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none").sum(dim=-1).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": soft_cross_entropy,
    "sigmoid": sigmoid_cross_entropy,
}
