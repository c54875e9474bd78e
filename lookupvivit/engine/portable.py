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
from torch import Tensor

MOMENTS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}
FILE = "optimizer.safetensors"  # "<parameter>/<moment>" -> float32 tensor
STEPS = "optimizer_steps"  # in the file's metadata: how often AdamW has corrected its bias


@torch.no_grad()
def save_moments(engine: Any, optimizer: str, file: Path, is_main: bool) -> None:
    """Write every moment of "sgd" or "adamw"; collective."""
    from deepspeed.utils import safe_get_full_optimizer_state

    _ensure_moments(engine, optimizer)
    found = {}
    for name, parameter in engine.module.named_parameters():
        for kind in MOMENTS[optimizer]:
            if engine.zero_optimization():
                moment = safe_get_full_optimizer_state(parameter, kind)
            else:
                moment = engine.basic_optimizer.state[parameter][kind]
            if is_main:
                found[f"{name}/{kind}"] = moment.detach().float().cpu().contiguous()
    if is_main:
        steps = [float(state["step"]) for state in engine.basic_optimizer.state.values() if "step" in state]
        save_file(found, file, {STEPS: str(steps[0] if steps else 0.0)})


@torch.no_grad()
def load_state(engine: Any, optimizer: str, weights: dict[str, Tensor], file: Path) -> None:
    """Put whole weights and moments into an engine of any number of ranks; collective.

    Args:
        weights: float32, by name; the engine was built of them, but perhaps rounded to bf16.
    """
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    _ensure_moments(engine, optimizer)
    with safe_open(file, "pt") as moments:
        steps = float(moments.metadata()[STEPS])
        for name, parameter in engine.module.named_parameters():
            if engine.zero_optimization():
                safe_set_full_fp32_param(parameter, weights[name].to(engine.device))
            for kind in MOMENTS[optimizer]:
                moment = moments.get_tensor(f"{name}/{kind}").to(engine.device)
                if engine.zero_optimization():
                    safe_set_full_optimizer_state(parameter, moment, kind)
                else:
                    engine.basic_optimizer.state[parameter][kind].copy_(moment)
    for state in engine.basic_optimizer.state.values():
        if "step" in state:
            state["step"].fill_(steps)


def _ensure_moments(engine: Any, optimizer: str) -> None:
    """Optimizers and DeepSpeed make their state at the first step; here it is wanted before, or without one."""
    base = engine.basic_optimizer
    parameters = [parameter for group in base.param_groups for parameter in group["params"]]
    for parameter in getattr(engine.optimizer, "fp32_partitioned_groups_flat", parameters):  # ZeRO-3 has its own list
        for kind in MOMENTS[optimizer]:
            if base.state[parameter].get(kind) is None:
                base.state[parameter][kind] = torch.zeros_like(parameter)
        if optimizer == "adamw":
            base.state[parameter].setdefault("step", torch.tensor(0.0))
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        # Its view of the state is from before the first step, or before a checkpoint was loaded.
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
