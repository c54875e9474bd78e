"""Exponential moving average (EMA) of the weights over training, in the tradition of Polyak and Ruppert.

The average is taken of the float32 master weights and stored in the optimizer's state next to the moments. It is
therefore sharded under ZeRO 1 to 3, offloaded, saved and loaded together with them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

KEY = "ema"  # its key in the optimizer's state


def decay_of_step(step: int, decay: float) -> float:
    """Weight of the old average at an optimizer step counted from 0: min(decay, (1 + step) / (10 + step)).

    The ramp is that of TensorFlow's `ExponentialMovingAverage` with `num_updates`; it forgets the random start early.
    """
    return min(decay, (1 + step) / (10 + step))


class AveragedSteps:
    """Updates the averages of an optimizer's parameters after each of its steps.

    DeepSpeed calls the wrapped optimizer on whatever shard of the master weights a rank holds, so this class does not
    depend on the ZeRO stage. Skipped (non-finite) steps do not update the average. The decay is the group's
    ``ema_decay``; with 0, the average is the weights themselves.

    Args:
        optimizer: its ``step`` is replaced.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer, self._step = optimizer, optimizer.step
        optimizer.step = self.step  # type: ignore[method-assign]

    @torch.no_grad()
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Step the optimizer, then update the averages."""
        state = self._optimizer.state
        parameters = [(p, group["ema_decay"]) for group in self._optimizer.param_groups for p in group["params"]]
        # The average is added after the first step: an optimizer that finds any state does not initialise its own.
        initial = {p: p.detach().clone() for p, _ in parameters if KEY not in state.get(p, {})}
        result = self._step(*args, **kwargs)
        for parameter, decay in parameters:
            average = state[parameter].setdefault(KEY, initial.get(parameter))
            average.lerp_(parameter.detach(), 1 - decay)
        return result


@torch.no_grad()
def averaged_copy(engine: Any, model: nn.Module, averages: dict[str, Tensor]) -> nn.Module:
    """Load averaged weights into ``model``, in the engine's device and dtype and in eval mode.

    Args:
        engine: DeepSpeed's engine.
        model: of the engine's architecture, on the meta device.
        averages: state dict of the whole model in float32.
    """
    like = next(engine.module.parameters())
    state = {name: tensor.to(like.device, like.dtype) for name, tensor in averages.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()
