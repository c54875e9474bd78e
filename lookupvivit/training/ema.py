"""Exponential moving average (EMA) of the weights over training, as Polyak and Ruppert's averages are used today.

The average is of the float32 master weights and lives in the optimizer's state beside the moments: it is sharded as
they are under ZeRO 1 to 3, and offloaded, saved and loaded with them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

STATE = "ema"  # its key in the optimizer's state


def decay_of_step(step: int, decay: float) -> float:
    """Weight of the old average at an optimizer step counted from 0: min(decay, (1 + step) / (10 + step)).

    The ramp (TensorFlow's `ExponentialMovingAverage` with `num_updates`) lets go of the random start soon.
    """
    return min(decay, (1 + step) / (10 + step))


class AveragedSteps:
    """After each step of an optimizer, moves the averages of the parameters that it stepped on.

    DeepSpeed calls the wrapped optimizer on whatever shard of the masters a rank holds, so this never needs to know of
    stages; steps that are left out for their gradients do not come by here. How far an average moves is the group's
    ``ema_decay``; 0 makes it the weights themselves.

    Args:
        optimizer: its ``step`` is replaced.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer, self._step = optimizer, optimizer.step
        optimizer.step = self.step

    @torch.no_grad()
    def step(self, *arguments: Any, **options: Any) -> Any:
        """The optimizer's step, and the average's."""
        state = self._optimizer.state
        parameters = [(p, group["ema_decay"]) for group in self._optimizer.param_groups for p in group["params"]]
        # An optimizer that finds anything in a parameter's state takes it for its own: added after its step only.
        starts = {p: p.detach().clone() for p, _ in parameters if STATE not in state.get(p, {})}
        result = self._step(*arguments, **options)
        for parameter, decay in parameters:
            average = state[parameter].setdefault(STATE, starts.get(parameter))
            average.lerp_(parameter.detach(), 1 - decay)
        return result


@torch.no_grad()
def averaged_copy(engine: Any, model: nn.Module, averages: dict[str, Tensor]) -> nn.Module:
    """``model`` (of the engine's architecture, on the meta device) with the averaged weights, ready to be evaluated.

    Args:
        averages: state dict in float32, of the whole model.
    """
    like = next(engine.module.parameters())
    state = {name: tensor.to(like.device, like.dtype) for name, tensor in averages.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()
