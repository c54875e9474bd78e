"""A run's state without its shards, so that another number of ranks can go on from it.

DeepSpeed's own checkpoints belong to the number of ranks that wrote them. Beside them lie the float32 weights and the
optimizer's moments, each a whole tensor under its parameter's name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lookupvivit.training import ema

MOMENTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}
FILE = "optimizer.safetensors"  # "<parameter>/<moment>" -> float32 tensor
STEPS = "optimizer_steps"  # in the file's metadata: how often AdamW has corrected its bias


@torch.no_grad()
def save_moments(engine: Any, optimizer: str, file: Path, is_main: bool) -> None:
    """Write every moment of "sgd" or "adamw"; collective."""
    _ensure_states(engine, optimizer, MOMENTS[optimizer])
    found = {}
    for name, parameter in trained(engine):
        for kind in MOMENTS[optimizer]:
            moment = whole(engine, parameter, kind)
            if is_main:
                found[f"{name}/{kind}"] = moment.float().cpu().contiguous()
    if is_main:
        steps = [float(state["step"]) for state in engine.basic_optimizer.state.values() if "step" in state]
        save_file(found, file, {STEPS: str(steps[0] if steps else 0.0)})


def trained(engine: Any) -> list[tuple[str, nn.Parameter]]:
    """The parameters that learn, by name; frozen ones have neither masters nor moments."""
    return [(name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad]


@torch.no_grad()
def whole(engine: Any, parameter: nn.Parameter, kind: str | None = None) -> Tensor:
    """A parameter's float32 master, or what its optimizer's state holds as ``kind``, unsharded; collective.

    Returned may be the tensor itself, not a copy.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if not engine.zero_optimization():
        return parameter.detach() if kind is None else engine.basic_optimizer.state[parameter][kind]
    return safe_get_full_fp32_param(parameter) if kind is None else safe_get_full_optimizer_state(parameter, kind)


@torch.no_grad()
def load_state(
    engine: Any, optimizer: str, weights: dict[str, Tensor], averages: dict[str, Tensor] | None, file: Path
) -> None:
    """Put whole weights, their averages and moments into an engine of any number of ranks; collective.

    Args:
        weights: float32, by name; the engine was built of them, but perhaps rounded to bf16.
        averages: float32, by name, where there is a moving average of the weights.
    """
    from deepspeed.utils import safe_set_full_fp32_param

    kinds = MOMENTS[optimizer] if averages is None else (*MOMENTS[optimizer], ema.STATE)
    _ensure_states(engine, optimizer, kinds)
    with safe_open(file, "pt") as moments:
        steps = float(moments.metadata()[STEPS])
        for name, parameter in trained(engine):
            if engine.zero_optimization():
                safe_set_full_fp32_param(parameter, weights[name].to(engine.device))
            for kind in MOMENTS[optimizer]:
                _set_state(engine, parameter, kind, moments.get_tensor(f"{name}/{kind}"))
            if averages is not None:
                _set_state(engine, parameter, ema.STATE, averages[name])
    for state in engine.basic_optimizer.state.values():
        if "step" in state:
            state["step"].fill_(steps)


def _set_state(engine: Any, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state

    if engine.zero_optimization():
        safe_set_full_optimizer_state(parameter, value.to(engine.device), kind)
    else:
        engine.basic_optimizer.state[parameter][kind].copy_(value)


def _ensure_states(engine: Any, optimizer: str, kinds: tuple[str, ...]) -> None:
    """Optimizers and DeepSpeed make their state at the first step; here it is wanted before, or without one."""
    base = engine.basic_optimizer
    parameters = [parameter for group in base.param_groups for parameter in group["params"]]
    for parameter in getattr(engine.optimizer, "fp32_partitioned_groups_flat", parameters):  # ZeRO-3 has its own list
        for kind in kinds:
            if base.state[parameter].get(kind) is None:
                base.state[parameter][kind] = torch.zeros_like(parameter)
        if optimizer == "adamw":
            base.state[parameter].setdefault("step", torch.tensor(0.0))
    link_states(engine)


def link_states(engine: Any) -> None:
    """Let ZeRO 1 and 2 find an optimizer's state that was made or loaded before a step of this process."""
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
