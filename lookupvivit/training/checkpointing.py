"""Checkpoints: written beside and renamed, found again by themselves, always with a consolidated model.

run/checkpoints/step_00001000/   DeepSpeed's resume shards (pickles: trusted inside one's own run only)
                                 + model.safetensors, model.json, and optimizer.safetensors for other rank counts
                                 + ema.safetensors, the weights' moving average, where there is one
run/model.safetensors, model.json   the newest model, loadable with neither DeepSpeed nor the configuration: the
                                 average where there is one
run/best/                        the same of the best validation so far
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_pipelines.io.files import digest
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import changes
from lookupvivit.training import ema, resharding
from lookupvivit.training.distributed import World
from lookupvivit.weights.files import DESCRIPTION, TOKENIZER, WEIGHTS, read_description, read_tensors, save_model

AVERAGES = "ema.safetensors"
BEST = "best"
TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container")  # in the RuntimeError of torch.save
STATE = "state.json"  # written last: a checkpoint without it is incomplete


def save(engine: Any, run: Path, step: int, description: dict[str, Any], keep: int, world: World) -> None:
    """Save everything needed to go on from ``step`` optimizer steps, and drop all but the newest ``keep``."""
    folder = run / "checkpoints"
    unfinished = folder / f".step_{step:08d}"
    with writing(unfinished):
        if world.is_main:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed while writing
            unfinished.mkdir(parents=True)
        world.barrier()
        engine.save_checkpoint(str(folder), tag=unfinished.name, save_latest=False)
        resharding.save_moments(
            engine, description["training"]["optimizer"], unfinished / resharding.FILE, world.is_main
        )
        state = full_state(engine)
        averages = full_state(engine, ema.STATE) if has_averages(description) else None
        world.barrier()
        if world.is_main:
            save_model(unfinished, state, {**description, "step": step})
            if averages is not None:
                save_file(averages, unfinished / AVERAGES)
            facts = {"step": step, "world_size": world.size, "files": digests(unfinished)}
            (unfinished / STATE).write_text(json.dumps(facts), encoding="utf-8")
            final = folder / unfinished.name.lstrip(".")
            shutil.rmtree(final, ignore_errors=True)
            os.replace(unfinished, final)
            publish(final, run)
            for old in complete(run)[:-keep]:
                shutil.rmtree(old)
        world.barrier()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Failures to write into ``folder``, in whatever words a library puts them, as one OSError; what is there goes.

    Raises:
        OSError: it names the folder, the reason and the space left.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORCH_CANNOT_WRITE):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        parent = next(place for place in folder.absolute().parents if place.exists())
        reason = str(error).splitlines()[0]
        raise OSError(
            f"{folder}: cannot be written ({reason}); {shutil.disk_usage(parent).free / 1e9:.1f} GB are free there. "
            "Nothing older was touched: make space, and the same command goes on from the last checkpoint"
        ) from None


def save_best(
    engine: Any, run: Path, step: int, description: dict[str, Any], metric: str, score: float, world: World
) -> None:
    """Keep the model as it is evaluated, if no validation before had a better ``score``; collective.

    Args:
        metric: what the score is called.
        score: 0 or more; counts on the main rank.
    """
    best = run / BEST
    if not world.from_main(int(world.is_main and score > best_score(run, metric))):
        return
    state = full_state(engine, ema.STATE if has_averages(description) else None)
    if not world.is_main:
        return
    beside = run / f".{BEST}"
    with writing(beside):
        shutil.rmtree(beside, ignore_errors=True)
        save_model(beside, state, {**description, "step": step, f"validation_{metric}": score})
        shutil.rmtree(best, ignore_errors=True)
        os.replace(beside, best)


def best_score(run: Path, metric: str) -> float:
    """Of the model in ``run/best``; -1 if there is none."""
    if not (run / BEST / WEIGHTS).is_file():
        return -1.0
    return float(read_description(run / BEST).get(f"validation_{metric}", -1.0))


def has_averages(description: dict[str, Any]) -> bool:
    """Whether a run keeps a moving average of its weights."""
    return description["training"]["ema_decay"] > 0


def digests(folder: Path) -> dict[str, str]:
    """A hash of every file in a checkpoint but `STATE`, by its name inside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STATE)
    return {str(file.relative_to(folder)): digest(file) for file in files}


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None if nothing is."""
    try:
        written = json.loads((checkpoint / STATE).read_text(encoding="utf-8")).get("files", {})
        present = digests(checkpoint)
    except (OSError, AttributeError, ValueError) as error:
        return f"{STATE} cannot be read ({type(error).__name__})"
    for name, hashed in written.items():
        if name not in present:
            return f"{name} is missing"
        if present[name] != hashed:
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
        raise ConfigError(
            f"output_dir: every checkpoint in {run / 'checkpoints'} is damaged; move them away to start "
            f"anew, perhaps with init_from={run}"
        )
    return found[chosen]


def publish(checkpoint: Path, run: Path) -> None:
    """Make ``checkpoint``'s model, or its average, the run's own."""
    averages, beside = checkpoint / AVERAGES, run / ".model"
    sources = {DESCRIPTION: checkpoint / DESCRIPTION, WEIGHTS: averages if averages.exists() else checkpoint / WEIGHTS}
    if (checkpoint / TOKENIZER).exists():  # a captioner's
        sources = {TOKENIZER: checkpoint / TOKENIZER, **sources}
    with writing(beside):
        beside.mkdir(exist_ok=True)
        for name, source in sources.items():
            shutil.copyfile(source, beside / name)
        for name in sources:
            os.replace(beside / name, run / name)
        beside.rmdir()


def complete(run: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(folder for folder in (run / "checkpoints").glob("step_*") if (folder / STATE).is_file())


def require_same(checkpoint: Path, run: Path, description: dict[str, Any]) -> None:
    """ConfigError where the run directory holds a run of another model, data set or optimizer."""
    theirs = read_description(checkpoint)
    differing = changes({key: theirs.get(key) for key in description}, description)
    if differing:
        raise ConfigError(f"output_dir: {run} has a run that differs in {'; '.join(differing[:3])}; use another")


def resume(engine: Any, checkpoint: Path, description: dict[str, Any], world: World) -> int:
    """Load a checkpoint into ``engine``, which was built of its weights; the number of steps it has behind it.

    On as many ranks as it was written by, bit for bit from DeepSpeed's shards; on others, from the whole tensors.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if state["world_size"] == world.size:
        loaded, _ = engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
        if loaded is None:
            raise RuntimeError(f"{checkpoint}: DeepSpeed could not load it; delete it to go on from an older one")
        resharding.link_states(engine)
    else:
        if world.is_main:
            print(f"{checkpoint} was written by {state['world_size']} ranks, going on with {world.size}")
        weights = read_tensors(checkpoint / WEIGHTS)
        averages = read_tensors(checkpoint / AVERAGES) if has_averages(description) else None
        optimizer = description["training"]["optimizer"]
        resharding.load_state(engine, optimizer, weights, averages, checkpoint / resharding.FILE)
    if world.is_main:
        publish(checkpoint, checkpoint.parents[1])  # a kill may have come between the checkpoint and this
    return int(state["step"])


@torch.no_grad()
def full_state(engine: Any, kind: str | None = None) -> dict[str, Tensor]:
    """The model's state dict in float32 on the CPU, gathered and unsharded; collective, every rank calls it.

    ZeRO keeps float32 master weights; those are what is saved, not their bf16 or fp16 shadow. Of frozen weights there
    are no masters, and what the engine was given is saved.

    Args:
        kind: `lookupvivit.training.ema.STATE` for the weights' averages.
    """
    state = dict(engine.frozen_weights)
    for name, parameter in resharding.trained(engine):
        state[name] = resharding.whole(engine, parameter, kind).float().cpu().clone()
    state.update((name, buffer.detach().cpu().clone()) for name, buffer in engine.module.named_buffers())
    return state
