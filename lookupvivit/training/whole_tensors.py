"""Whole tensors of an engine that shards them: float32 weights, moments of the optimizer, moving averages.

Every save gathers them. DeepSpeed's own checkpoints can only be read by the ranks and parameter groups that wrote them;
next to them, this library stores each tensor whole, under its parameter's name, and `load` distributes them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lookupvivit.training import ema

MOMENTS_FILE = "optimizer.safetensors"  # "<parameter>/<moment>" -> float32 tensor
STEPS = "optimizer_steps"  # in the file's metadata: the step count of AdamW's bias correction


@torch.no_grad()
def save_moments(engine: Any, file: Path, is_main: bool) -> None:
    """Write all moments of the optimizer, whose state exists; collective."""
    moments = {}
    for name, parameter in trainable(engine):
        for moment_name in engine.moment_names:
            moment = gather(engine, parameter, moment_name)
            if is_main:
                moments[f"{name}/{moment_name}"] = moment.float().cpu().contiguous()
    if is_main:
        steps = [float(state["step"]) for state in engine.basic_optimizer.state.values() if "step" in state]
        save_file(moments, file, {STEPS: str(steps[0] if steps else 0.0)})


@torch.no_grad()
def load(engine: Any, weights: dict[str, Tensor], averages: dict[str, Tensor] | None, file: Path) -> None:
    """Distribute whole weights, averages and moments over the ranks of an engine; collective.

    Args:
        engine: DeepSpeed's engine on any number of ranks.
        weights: float32, by name. The engine already has them, but may have rounded them to bf16.
        averages: float32, by name; None without a moving average.
        file: written by `save_moments`.
    """
    from deepspeed.utils import safe_set_full_fp32_param

    ensure_optimizer_state(engine)
    with safe_open(file, "pt") as moments:
        steps = float(moments.metadata()[STEPS])
        for name, parameter in trainable(engine):
            if engine.zero_optimization():
                safe_set_full_fp32_param(parameter, weights[name].to(engine.device))
            for moment_name in engine.moment_names:
                _set(engine, parameter, moment_name, moments.get_tensor(f"{name}/{moment_name}"))
            if averages is not None:
                _set(engine, parameter, ema.KEY, averages[name])
    for state in engine.basic_optimizer.state.values():
        if "step" in state:
            state["step"].fill_(steps)


def trainable(engine: Any) -> list[tuple[str, nn.Parameter]]:
    """The trainable parameters by name. Frozen ones have neither master weights nor moments."""
    return [(name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad]


@torch.no_grad()
def gather(engine: Any, parameter: nn.Parameter, key: str | None = None) -> Tensor:
    """A parameter's float32 master weight, or its optimizer's tensor under ``key``, as a whole tensor; collective.

    The result may share memory with the engine.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if not engine.zero_optimization():
        return parameter.detach() if key is None else engine.basic_optimizer.state[parameter][key]
    if key is None:
        return safe_get_full_fp32_param(parameter)
    return safe_get_full_optimizer_state(parameter, key)


def _set(engine: Any, parameter: nn.Parameter, key: str, value: Tensor) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state

    if engine.zero_optimization():
        safe_set_full_optimizer_state(parameter, value.to(engine.device), key)
    else:
        engine.basic_optimizer.state[parameter][key].copy_(value)


def ensure_optimizer_state(engine: Any) -> None:
    """Create the optimizer's state, which torch and DeepSpeed create in the first step that is not skipped.

    Moments are then zero, and averages are the weights.
    """
    base = engine.basic_optimizer
    groups = base.param_groups
    flat = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)  # ZeRO-3 has its own list
    for parameter in flat or [parameter for group in groups for parameter in group["params"]]:
        state = base.state[parameter]
        for moment_name in engine.moment_names:
            if state.get(moment_name) is None:
                state[moment_name] = torch.zeros_like(parameter)
        if "betas" in groups[0]:
            state.setdefault("step", torch.tensor(0.0))
        if engine.has_averages and ema.KEY not in state:
            state[ema.KEY] = parameter.detach().clone()
    link_optimizer_state(engine)


def link_optimizer_state(engine: Any) -> None:
    """Register optimizer state with ZeRO 1 and 2 that was created or loaded before the first step of this process."""
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
