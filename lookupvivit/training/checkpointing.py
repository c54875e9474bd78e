"""Atomic checkpoints with automatic resume; each contains the model as a file that loads without DeepSpeed.

run/checkpoints/step_00001000/      DeepSpeed's resume shards (pickles: load only those of your own runs),
                                    model.safetensors and model.json,
                                    optimizer.safetensors (for another number of ranks),
                                    ema.safetensors (the weights' moving average, if there is one),
                                    state.json (step, number of ranks, file hashes)
run/model.safetensors, model.json   the newest model, which loads with neither DeepSpeed nor the configuration;
                                    the moving average, if there is one
run/best/                           the same of the best validation so far
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_pipelines.io.atomic import atomic_files, replace_folder
from data_pipelines.io.hashing import file_digest
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import changes
from lookupvivit.training import ema, resharding
from lookupvivit.training.distributed import World
from lookupvivit.weights.files import DESCRIPTION, TOKENIZER, WEIGHTS, read_description, read_tensors, save_model

AVERAGES = "ema.safetensors"
BEST = "best"
STATE = "state.json"  # written last: a checkpoint without it is incomplete
TORCH_WRITE_ERRORS = ("PytorchStreamWriter", "inline_container")  # in the RuntimeError of torch.save

# ----------------------------------------------------------------------------------------------------------------------
# Saving


def save(engine: Any, run_dir: Path, step: int, description: dict[str, Any], keep: int, world: World) -> None:
    """Write the checkpoint of ``step`` optimizer steps, publish its model, and remove all but the newest ``keep``.

    Collective. The checkpoint is written to a temporary folder that is renamed when complete.
    """
    folder = run_dir / "checkpoints"
    temporary, final = folder / f".step_{step:08d}", folder / f"step_{step:08d}"
    with write_errors(final, temporary):
        if world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed while writing
            temporary.mkdir(parents=True)
        world.barrier()

        # Every rank writes its shard; whole tensors are gathered on all ranks and written by rank 0.
        engine.save_checkpoint(str(folder), tag=temporary.name, save_latest=False)
        optimizer = description["training"]["optimizer"]
        resharding.save_moments(engine, optimizer, temporary / resharding.FILE, world.is_main)
        weights = full_state(engine)
        averages = full_state(engine, ema.STATE) if has_averages(description) else None
        world.barrier()

        if world.is_main:
            save_model(temporary, weights, {**description, "step": step})
            if averages is not None:
                save_file(averages, temporary / AVERAGES)
            state = {"step": step, "world_size": world.size, "files": file_hashes(temporary)}
            (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
            replace_folder(temporary, final)
            publish(final, run_dir)
            for old in complete_checkpoints(run_dir)[:-keep]:
                shutil.rmtree(old)
        world.barrier()


def publish(checkpoint: Path, run_dir: Path) -> None:
    """Copy the model of ``checkpoint``, or its moving average, to the run directory."""
    averages = checkpoint / AVERAGES
    sources = {DESCRIPTION: checkpoint / DESCRIPTION, WEIGHTS: averages if averages.exists() else checkpoint / WEIGHTS}
    if (checkpoint / TOKENIZER).exists():  # a captioner has one
        sources[TOKENIZER] = checkpoint / TOKENIZER
    with write_errors(run_dir), atomic_files(run_dir) as temporary:
        for name, source in sources.items():
            shutil.copyfile(source, temporary / name)


def save_best(
    engine: Any, run_dir: Path, step: int, description: dict[str, Any], metric: str, score: float, world: World
) -> None:
    """Write the evaluated model to ``best/`` if no earlier validation scored higher; collective.

    Args:
        metric: name of the score.
        score: 0 or more; the one of rank 0 counts.
    """
    best = run_dir / BEST
    if not world.from_main(int(world.is_main and score > best_score(run_dir, metric))):
        return
    weights = full_state(engine, ema.STATE if has_averages(description) else None)
    if not world.is_main:
        return
    temporary = run_dir / f".{BEST}"
    with write_errors(best, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        save_model(temporary, weights, {**description, "step": step, f"validation_{metric}": score})
        replace_folder(temporary, best)


def best_score(run_dir: Path, metric: str) -> float:
    """The score of the model in ``best/``; -1 if there is none."""
    if not (run_dir / BEST / WEIGHTS).is_file():
        return -1.0
    return float(read_description(run_dir / BEST).get(f"validation_{metric}", -1.0))


@contextmanager
def write_errors(folder: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn a library's failure to write ``folder`` into one OSError, and remove ``temporary``.

    Raises:
        OSError: names the folder, the reason and the free space.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORCH_WRITE_ERRORS):
            raise
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        reason = str(error).splitlines()[0]
        raise OSError(
            f"{folder}: cannot be written ({reason}); {shutil.disk_usage(parent).free / 1e9:.1f} GB are free there. "
            "Earlier checkpoints are unchanged: free some space, and the same command resumes from the last one"
        ) from None


@torch.no_grad()
def full_state(engine: Any, state_name: str | None = None) -> dict[str, Tensor]:
    """The model's state dict in float32 on the CPU, gathered from all ranks; collective.

    ZeRO keeps float32 master weights, which are returned, not their bf16 or fp16 copies. Frozen weights have no
    masters; those that the engine was built with are returned.

    Args:
        state_name: `lookupvivit.training.ema.STATE` for the weights' moving averages.
    """
    state = dict(engine.frozen_weights)
    for name, parameter in resharding.trainable(engine):
        state[name] = resharding.gather(engine, parameter, state_name).float().cpu().clone()
    state.update((name, buffer.detach().cpu().clone()) for name, buffer in engine.module.named_buffers())
    return state


def has_averages(description: dict[str, Any]) -> bool:
    """Whether a run keeps a moving average of its weights."""
    return description["training"]["ema_decay"] > 0


# ----------------------------------------------------------------------------------------------------------------------
# Finding and verifying


def newest_intact(run_dir: Path, world: World) -> Path | None:
    """The newest checkpoint whose files are as they were written, the same on all ranks; None without checkpoints.

    Corrupt checkpoints are reported, and the next older one is tried.

    Raises:
        ConfigError: all checkpoints are corrupt.
    """
    checkpoints = complete_checkpoints(run_dir)
    if not checkpoints:
        return None
    chosen = -1
    if world.is_main:
        for index, checkpoint in reversed(list(enumerate(checkpoints))):
            problem = find_corruption(checkpoint)
            if problem is None:
                chosen = index
                break
            print(f"checkpoint {checkpoint} is corrupt: {problem}")
    chosen = world.from_main(chosen)
    if chosen < 0:
        raise ConfigError(
            f"output_dir: all checkpoints in {run_dir / 'checkpoints'} are corrupt; move them elsewhere to start "
            f"again, for example with init_from={run_dir}"
        )
    return checkpoints[chosen]


def complete_checkpoints(run_dir: Path) -> list[Path]:
    """The completely written checkpoints of a run, oldest first."""
    return sorted(folder for folder in (run_dir / "checkpoints").glob("step_*") if (folder / STATE).is_file())


def file_hashes(folder: Path) -> dict[str, str]:
    """The hash of every file in a checkpoint except `STATE`, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STATE)
    return {str(file.relative_to(folder)): file_digest(file) for file in files}


def find_corruption(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None if they are as they were written."""
    try:
        written = json.loads((checkpoint / STATE).read_text(encoding="utf-8")).get("files", {})
        present = file_hashes(checkpoint)
    except (OSError, AttributeError, ValueError) as error:
        return f"{STATE} cannot be read ({type(error).__name__})"
    for name, expected in written.items():
        if name not in present:
            return f"{name} is missing"
        if present[name] != expected:
            return f"{name} has changed since it was written"
    return None


# ----------------------------------------------------------------------------------------------------------------------
# Loading


def require_same_run(checkpoint: Path, run_dir: Path, description: dict[str, Any]) -> None:
    """Check that a checkpoint is of the same model, dataset and optimizer as this run.

    Raises:
        ConfigError: names what differs.
    """
    saved = read_description(checkpoint)
    differences = changes({key: saved.get(key) for key in description}, description)
    if differences:
        raise ConfigError(
            f"output_dir: {run_dir} has a run with other settings: {'; '.join(differences[:3])}; set another output_dir"
        )


def resume(engine: Any, checkpoint: Path, description: dict[str, Any], world: World) -> int:
    """Load optimizer and master weights from a checkpoint; collective.

    With the number of ranks that wrote it, they are read from DeepSpeed's shards, bit for bit; with another number,
    from the whole tensors.

    Args:
        engine: built with the checkpoint's weights.

    Returns:
        The number of optimizer steps taken.
    """
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if state["world_size"] == world.size:
        loaded, _ = engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
        if loaded is None:
            raise RuntimeError(f"{checkpoint}: DeepSpeed cannot load it; delete it to resume from an older one")
        resharding.link_state(engine)
    else:
        if world.is_main:
            print(f"{checkpoint} was written by {state['world_size']} ranks; resuming with {world.size}")
        weights = read_tensors(checkpoint / WEIGHTS)
        averages = read_tensors(checkpoint / AVERAGES) if has_averages(description) else None
        optimizer = description["training"]["optimizer"]
        resharding.load_state(engine, optimizer, weights, averages, checkpoint / resharding.FILE)
    if world.is_main:
        publish(checkpoint, checkpoint.parents[1])  # the run may have been killed before publishing it
    return int(state["step"])
