"""Checkpoints: written beside and renamed, found again by themselves, always with a consolidated model.

    run/checkpoints/step_00001000/   DeepSpeed's resume shards (pickles: trusted inside one's own run only)
                                     + model.safetensors, model.json, and optimizer.safetensors for other rank counts
    run/model.safetensors, model.json   the newest model, loadable with neither DeepSpeed nor the configuration
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lookupvivit.config import ConfigError
from lookupvivit.engine import portable
from lookupvivit.engine.distributed import World
from lookupvivit.weights.files import DESCRIPTION, WEIGHTS, read_description, read_tensors, save_model

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
    portable.save_moments(engine, description["training"]["optimizer"], unfinished / portable.FILE, world.is_main)
    state = full_state(engine)
    world.barrier()
    if world.is_main:
        save_model(unfinished, state, {**description, "step": step})
        facts = {"step": step, "world_size": world.size, "files": digests(unfinished)}
        (unfinished / STATE).write_text(json.dumps(facts), encoding="utf-8")
        final = folder / unfinished.name.lstrip(".")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(unfinished, final)
        publish(final, run)
        for old in complete(run)[:-keep]:
            shutil.rmtree(old)
    world.barrier()


def digests(folder: Path) -> dict[str, str]:
    """A hash of every file in a checkpoint but `STATE`, by its name inside."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STATE):
        with file.open("rb") as content:
            digest = hashlib.blake2b()
            while chunk := content.read(2**24):
                digest.update(chunk)
        found[str(file.relative_to(folder))] = digest.hexdigest()
    return found


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None if nothing is."""
    try:
        written = json.loads((checkpoint / STATE).read_text(encoding="utf-8")).get("files", {})
        present = digests(checkpoint)
    except (OSError, AttributeError, ValueError) as error:
        return f"{STATE} cannot be read ({type(error).__name__})"
    for name, digest in written.items():
        if name not in present:
            return f"{name} is missing"
        if present[name] != digest:
            return f"{name} is not what was written"
    return None


def newest_sound(run: Path, world: World) -> Path | None:
    """The newest checkpoint that is as it was written, the same on all ranks; None if there is no checkpoint.

    Raises:
        ConfigError: there are checkpoints, and every one is damaged.
    """
    found = complete(run)
    if not found:
        return None
    chosen = -1
    if world.is_main:
        for place, checkpoint in reversed(list(enumerate(found))):
            reason = damage(checkpoint)
            if reason is None:
                chosen = place
                break
            print(f"checkpoint {checkpoint} is damaged: {reason}")
    chosen = world.from_main(chosen)
    if chosen < 0:
        raise ConfigError(f"output_dir: every checkpoint in {run / 'checkpoints'} is damaged; move them away to start "
                          f"anew, perhaps with init_from={run}")  # fmt: skip
    return found[chosen]


def publish(checkpoint: Path, run: Path) -> None:
    """Make ``checkpoint``'s model the run's own."""
    for name in (DESCRIPTION, WEIGHTS):
        shutil.copyfile(checkpoint / name, run / f".{name}.tmp")
        os.replace(run / f".{name}.tmp", run / name)


def complete(run: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(folder for folder in (run / "checkpoints").glob("step_*") if (folder / STATE).is_file())


def require_same(checkpoint: Path, run: Path, description: dict[str, Any]) -> None:
    """ConfigError where the run directory holds a run of another model, data set or optimizer."""
    theirs = read_description(checkpoint)
    for key in description.keys() & theirs.keys():
        ours = json.loads(json.dumps(description[key]))  # tuples become lists
        if theirs[key] != ours:
            raise ConfigError(f"output_dir: {run} has a run with {key} {theirs[key]}, not {ours}; use another")


def resume(engine: Any, checkpoint: Path, description: dict[str, Any], world: World) -> int:
    """Load a checkpoint into ``engine``, which was built of its weights; the number of steps it has behind it.

    On as many ranks as it was written by, bit for bit from DeepSpeed's shards; on others, from the whole tensors.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if state["world_size"] == world.size:
        loaded, _ = engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
        if loaded is None:
            raise RuntimeError(f"{checkpoint}: DeepSpeed could not load it; delete it to go on from an older one")
    else:
        if world.is_main:
            print(f"{checkpoint} was written by {state['world_size']} ranks, going on with {world.size}")
        optimizer, weights = description["training"]["optimizer"], read_tensors(checkpoint / WEIGHTS)
        portable.load_state(engine, optimizer, weights, checkpoint / portable.FILE)
    if world.is_main:
        publish(checkpoint, checkpoint.parents[1])  # a kill may have come between the checkpoint and this
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
