"""Checkpoints: written beside and renamed, found again by themselves, always with a consolidated model.

    run/checkpoints/step_00001000/   DeepSpeed's resume shards (pickles: trusted inside one's own run only)
                                     + model.safetensors, model.json
    run/model.safetensors, model.json   the newest model, loadable with neither DeepSpeed nor the configuration
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lookupvivit.config import ConfigError
from lookupvivit.engine.distributed import World
from lookupvivit.weights.files import DESCRIPTION, WEIGHTS, read_description, save_model

STATE = "state.json"  # written last: a checkpoint without it is incomplete


def save(engine: Any, run: Path, step: int, description: dict[str, Any], keep: int, world: World) -> None:
    """Save everything needed to go on from ``step`` optimizer steps, and drop all but the newest ``keep``."""
    folder = run / "checkpoints"
    unfinished = folder / f".step_{step:08d}"
    if world.is_main:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed while writing
        unfinished.mkdir(parents=True)
    world.barrier()
    engine.save_checkpoint(str(folder), tag=unfinished.name, save_latest=False)
    state = full_state(engine)
    world.barrier()
    if world.is_main:
        save_model(unfinished, state, {**description, "step": step})
        (unfinished / STATE).write_text(json.dumps({"step": step, "world_size": world.size}), encoding="utf-8")
        final = folder / unfinished.name.lstrip(".")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(unfinished, final)
        publish(final, run)
        for old in complete(run)[:-keep]:
            shutil.rmtree(old)
    world.barrier()


def publish(checkpoint: Path, run: Path) -> None:
    """Make ``checkpoint``'s model the run's own."""
    for name in (DESCRIPTION, WEIGHTS):
        shutil.copyfile(checkpoint / name, run / f".{name}.tmp")
        os.replace(run / f".{name}.tmp", run / name)


def complete(run: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(folder for folder in (run / "checkpoints").glob("step_*") if (folder / STATE).is_file())


def resume(engine: Any, run: Path, description: dict[str, Any], world: World) -> int:
    """Load the newest checkpoint into ``engine``; the number of optimizer steps it has behind it, 0 if none.

    Raises:
        ConfigError: the run directory holds a run of another model, or of another number of ranks.
    """
    found = complete(run)
    if not found:
        return 0
    newest = found[-1]
    state, theirs = json.loads((newest / STATE).read_text(encoding="utf-8")), read_description(newest)
    for key in description.keys() & theirs.keys():
        ours = json.loads(json.dumps(description[key]))  # tuples become lists
        if theirs[key] != ours:
            raise ConfigError(f"output_dir: {run} has a run with {key} {theirs[key]}, not {ours}; use another")
    if state["world_size"] != world.size:
        raise ConfigError(
            f"output_dir: {run} has a run of {state['world_size']} ranks and this one has {world.size}; go on with "
            "as many, or start another run with init_from"
        )
    loaded, _ = engine.load_checkpoint(str(newest.parent), tag=newest.name)
    if loaded is None:
        raise RuntimeError(f"{newest}: DeepSpeed could not load this checkpoint; delete it to go on from an older one")
    if world.is_main:
        publish(newest, run)  # a kill may have come between the checkpoint and this
    return int(state["step"])


@torch.no_grad()
def full_state(engine: Any) -> dict[str, Tensor]:
    """The model's state dict in float32 on the CPU, gathered and unsharded; collective, every rank calls it.

    ZeRO keeps float32 master weights; those are what is saved, not their bf16 or fp16 shadow.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    state = {}
    sharded = engine.zero_optimization()
    for name, parameter in engine.module.named_parameters():
        master = safe_get_full_fp32_param(parameter) if sharded else parameter
        state[name] = master.detach().float().cpu().clone()
    state.update((name, buffer.detach().cpu().clone()) for name, buffer in engine.module.named_buffers())
    return state
