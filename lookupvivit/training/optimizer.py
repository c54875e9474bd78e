"""Learning rate schedule, parameter groups, the optimizer, and the guard against non-finite gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lookupvivit.config import OptimConfig
from lookupvivit.models.base import Model

Losses = list[tuple[list[str], Tensor]]  # per micro-batch of a step: names of its videos, and its losses (S,)
MOMENT_NAMES = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}  # keys of the optimizer's state


def learning_rate(step: int, total_steps: int, warmup_steps: int, base: float) -> float:
    """Linear warmup, then a cosine decay to zero, at an optimizer step counted from 0.

    lr(t) = base * min(1, t / w) * (1 + cos(pi * max(0, t - w) / (T - w))) / 2, the compound schedule of scenic. With a
    warmup, the lr of the first step is therefore 0.
    """
    warmup = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    progress = max(0, step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(model: Model, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Group the trainable parameters by weight decay and learning rate.

    Weight decay applies to kernels, not to biases, norms and `model.no_weight_decay()`. The last of
    `model.layer_groups()` (final norms and classifiers) has the scheduled learning rate; each group before it has
    ``layer_decay`` times the rate of the next one (``lr_scale``; layer-wise decay as in BEiT).

    Parameters with the same settings share a group, because ZeRO shards and launches per group: there are at most
    2 x (depth + 2) groups, and two without layer decay.
    """
    exempt = model.no_weight_decay()
    parameters, layers = dict(model.named_parameters()), model.layer_groups()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for depth, names in enumerate(layers):
        scale = layer_decay ** (len(layers) - 1 - depth)
        for name in names:
            parameter = parameters[name]
            if parameter.requires_grad:
                decays = parameter.dim() >= 2 and name not in exempt
                groups.setdefault((scale, weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": members, "weight_decay": decay, "lr_scale": scale, "ema_decay": 0.0}
        for (scale, decay), members in groups.items()
    ]


def same_groups(before: Any, after: OptimConfig) -> bool:
    """Whether `parameter_groups` groups parameters in the same way, possibly with other values.

    Args:
        before: the section ``optim`` of an earlier config.yaml.
        after: the current one.
    """
    if not isinstance(before, dict):
        return False
    earlier = {key: before.get(key, after.default(key)) for key in ("weight_decay", "layer_decay")}
    return bool(earlier["weight_decay"]) == bool(after.weight_decay) and earlier["layer_decay"] == after.layer_decay


def build_optimizer(model: Model, config: OptimConfig, offloaded: bool = False) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW.

    Args:
        offloaded: the update is computed on the CPU, where the fused implementation is the vectorised one.
    """
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True if offloaded else None)


class NonFiniteGradients(FloatingPointError):
    """Gradients are NaN or infinite; no weight has changed yet."""


class FiniteSteps:
    """Lets an optimizer step only if all its gradients, on every rank, are finite.

    DeepSpeed checks for overflow in some precisions and stages only, and then skips the step silently. Every stage
    calls the ``step`` of the optimizer that it wraps, with reduced gradients (its shard of them under ZeRO), so the
    check is made there.

    Args:
        optimizer: its ``step`` is replaced.
        any_rank: whether a flag is set on any rank; collective.
        skip: skip such steps instead of raising.

    Attributes:
        skipped: number of skipped steps.

    Raises:
        NonFiniteGradients: in ``step``, on all ranks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, any_rank: Callable[[bool], bool], skip: bool) -> None:
        self.skipped = 0
        self._optimizer, self._step, self._any_rank, self._skip = optimizer, optimizer.step, any_rank, skip
        optimizer.step = self.step  # type: ignore[method-assign]

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Step the optimizer, or skip."""
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = not gradients or bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all())
        if not self._any_rank(not finite):
            return self._step(*args, **kwargs)
        if not self._skip:
            raise NonFiniteGradients
        self.skipped += 1
        return None


def non_finite_message(step: int, rank: int, losses: Losses, unit: str) -> str:
    """Name step, rank and the videos whose loss is not finite, or all of them where every loss is.

    Args:
        step: optimizer steps taken before this one.
        losses: of this rank's micro-batches.
        unit: what the videos are called.
    """
    suspects = [entry for entry in losses if not entry[1].isfinite().all()] or losses
    names = [name for batch_names, _ in suspects for name in batch_names]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return (
        f"step {step + 1}, rank {rank}: gradients are not finite (loss {float(suspects[-1][1].sum()):.4g}); no weight "
        f"was changed. {unit.capitalize()}s: {shown}. "
        "Try a lower optim.lr, runtime.precision=fp32 or optim.skip_non_finite=true"
    )
