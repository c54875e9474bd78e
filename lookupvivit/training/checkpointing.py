"""Atomic checkpoints with automatic resume; each contains the model as a file that loads without DeepSpeed.

run/checkpoints/step_00001000/      DeepSpeed's resume shards (pickles: load only those of your own runs),
                                    model.safetensors and model.json,
                                    optimizer.safetensors (for another number of ranks or other parameter groups),
                                    ema.safetensors (the weights' moving average, if there is one),
                                    config.yaml (what it was trained with),
                                    state.json (written last: step, number of ranks, file hashes)
run/model.safetensors, model.json   the newest model, which loads with neither DeepSpeed nor the configuration;
                                    the moving average, if there is one
run/best/                           the same of the best validation so far

`lookupvivit.training.checkpoint_folders` finds, verifies and removes checkpoints; `lookupvivit.training.run_directory`
knows which of these files belong to the run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_pipelines.io.atomic import atomic_files, move_folder, new_folder, sync, write_text
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import to_yaml
from lookupvivit.training import ema, whole_tensors
from lookupvivit.training.checkpoint_folders import COMPLETION_FILE, checkpoint_folder, file_hashes, remove_old
from lookupvivit.training.deepspeed_engine import keep_settings
from lookupvivit.training.distributed import World
from lookupvivit.training.optimizer import same_groups
from lookupvivit.training.run_directory import (
    BEST,
    CONFIG,
    MODEL_FILES,
    PUBLISHING,
    belongs,
    differences,
    is_model_folder,
    set_aside,
    trained_settings,
)
from lookupvivit.weights.files import (
    DESCRIPTION,
    TOKENIZER,
    WEIGHTS,
    WeightsError,
    read_description,
    read_tensors,
    save_model,
)

AVERAGES = "ema.safetensors"
TORCH_WRITE_ERRORS = ("PytorchStreamWriter", "inline_container")  # in the RuntimeError of torch.save

# ----------------------------------------------------------------------------------------------------------------------
# Saving


def save(engine: Any, run_dir: Path, step: int, description: dict[str, Any], config: RunConfig, world: World) -> None:
    """Write the checkpoint of ``step`` optimizer steps, publish its model, and remove old checkpoints.

    Collective. The checkpoint is written to a temporary folder that is renamed when complete and on the disk.
    """
    final = checkpoint_folder(run_dir, step)
    temporary = final.with_name(f".{final.name}")
    with write_errors(final, temporary):
        if world.is_main:
            new_folder(temporary)
        world.barrier()

        # Every rank writes its shard; whole tensors are gathered on all ranks and written by rank 0.
        whole_tensors.ensure_optimizer_state(engine)
        engine.save_checkpoint(str(final.parent), tag=temporary.name, save_latest=False)
        for shard in temporary.glob(f"*_rank_{world.rank}_*"):
            sync(shard)  # rank 0 could not: other machines may still have it in memory
        whole_tensors.save_moments(engine, temporary / whole_tensors.MOMENTS_FILE, world.is_main)
        weights = full_state_dict(engine)
        averages = full_state_dict(engine, ema.KEY) if has_averages(description) else None
        world.barrier()

        if world.is_main:
            save_model(temporary, weights, {**description, "step": step})
            if averages is not None:
                save_file(averages, temporary / AVERAGES)
            (temporary / CONFIG).write_text(to_yaml(config), encoding="utf-8")
            completion = {"step": step, "world_size": world.size, "files": file_hashes(temporary)}
            (temporary / COMPLETION_FILE).write_text(json.dumps(completion), encoding="utf-8")
            if final.exists():
                set_aside([final], run_dir)
            move_folder(temporary, final)
    if world.is_main:  # errors from here on do not concern the checkpoint
        publish(final, run_dir, description)
        with write_errors(run_dir / CONFIG):
            write_text(run_dir / CONFIG, to_yaml(config))
        remove_old(run_dir, final, config.log.keep_checkpoints)
    world.barrier()


def publish(checkpoint: Path, run_dir: Path, description: dict[str, Any]) -> None:
    """Copy the model of ``checkpoint``, or its moving average, to the run directory.

    A model of another run is set aside. The description comes last, so that a crash cannot leave it with older weights.
    """
    others = [run_dir / name for name in MODEL_FILES if (run_dir / name).exists()]
    if others and not belongs(run_dir, description):
        print(f"{run_dir} has the model of another run, which is moved to {set_aside(others, run_dir)}")
    averages = checkpoint / AVERAGES
    sources = {DESCRIPTION: checkpoint / DESCRIPTION, WEIGHTS: averages if averages.exists() else checkpoint / WEIGHTS}
    if (checkpoint / TOKENIZER).exists():  # a captioner has one
        sources[TOKENIZER] = checkpoint / TOKENIZER
    with write_errors(run_dir), atomic_files(run_dir, PUBLISHING, last=DESCRIPTION) as temporary:
        for name, source in sources.items():
            shutil.copyfile(source, temporary / name)


def save_best(
    engine: Any, run_dir: Path, step: int, description: dict[str, Any], metric: str, score: float, world: World
) -> None:
    """Write the evaluated model to ``best/`` if it scores higher than every earlier one; collective.

    ``best/`` has a complete model at every instant: an earlier one is replaced file by file, the description last.

    Args:
        metric: name of the score.
        score: 0 or more; the one of rank 0 counts.
    """
    best = run_dir / BEST
    if not world.from_main(int(world.is_main and score > best_score(best, metric, description))):
        return
    weights = full_state_dict(engine, ema.KEY if has_averages(description) else None)
    if not world.is_main:
        return
    temporary, scored = run_dir / f".{BEST}", {**description, "step": step, f"validation_{metric}": score}
    with write_errors(best, temporary):
        if best.exists():
            with atomic_files(best, last=DESCRIPTION) as folder:
                save_model(folder, weights, scored)
        else:
            new_folder(temporary)
            save_model(temporary, weights, scored)
            move_folder(temporary, best)


def best_step(run_dir: Path, default: int, world: World) -> int:
    """The optimizer step of the model in ``best/``, or ``default`` if there is none; collective."""
    step = default
    if world.is_main:
        with suppress(WeightsError):
            step = int(read_description(run_dir / BEST).get("step", default))
    return world.from_main(step)


def best_score(best: Path, metric: str, description: dict[str, Any]) -> float:
    """The score of the model in ``best``; -1 if there is none, and infinite if it must not be replaced.

    A model that cannot be read is reported and set aside.
    """
    if not best.exists():
        return -1.0
    try:
        score = read_description(best).get(f"validation_{metric}")
    except WeightsError as error:
        if is_model_folder(best):
            print(f"{error}; {best} moved to {set_aside([best], best.parent)}")
            return -1.0
        score = None
    if not belongs(best, description):  # it appeared while the run was training
        print(f"{best} is not of this run; the best model is not written until it is moved")
        return float("inf")
    return float(score) if isinstance(score, (int, float)) else -1.0


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
def full_state_dict(engine: Any, key: str | None = None) -> dict[str, Tensor]:
    """The model's state dict in float32 on the CPU, gathered from all ranks; collective.

    ZeRO keeps float32 master weights, which are returned, not their bf16 or fp16 copies. Frozen weights have no
    masters; those that the engine was built with are returned.

    Args:
        key: `lookupvivit.training.ema.KEY` for the weights' moving averages.
    """
    if key is not None:
        whole_tensors.ensure_optimizer_state(engine)
    tensors = dict(engine.frozen_weights)
    for name, parameter in whole_tensors.trainable(engine):
        tensors[name] = whole_tensors.gather(engine, parameter, key).float().cpu().clone()
    tensors.update((name, buffer.detach().cpu().clone()) for name, buffer in engine.module.named_buffers())
    return tensors


def has_averages(description: dict[str, Any]) -> bool:
    """Whether a run keeps a moving average of its weights."""
    return description["training"]["ema_decay"] > 0


# ----------------------------------------------------------------------------------------------------------------------
# Loading


def require_same_run(checkpoint: Path, run_dir: Path, description: dict[str, Any]) -> None:
    """Check that a checkpoint is of the same model, dataset and optimizer as this run.

    Raises:
        ConfigError: names what differs.
    """
    saved, settings = read_description(checkpoint), trained_settings(run_dir, checkpoint)
    if settings and isinstance(saved.get("training"), dict):  # checkpoints of version 0.1 do not contain the repeats
        repeats = (settings.get("data") or {}).get("repeats", 1)
        saved["training"] = {"repeats": repeats, **saved["training"]}
    if different := differences(saved, description):
        raise ConfigError(
            f"output_dir: {run_dir} has a run with other settings: {'; '.join(different[:3])}; set another output_dir"
        )


def resume(engine: Any, checkpoint: Path, description: dict[str, Any], config: RunConfig, world: World) -> int:
    """Restore the optimizer: moments, float32 master weights and, if there is one, their moving average; collective.

    With the number of ranks and the parameter groups that wrote the checkpoint, all of them are read from DeepSpeed's
    shards, bit for bit; otherwise from the whole tensors. The average is restored with the moments, because it is part
    of the optimizer's state. The optimizer's settings are those of ``config`` in both cases.

    Args:
        engine: built with the checkpoint's weights, which the master weights replace where they were rounded.

    Returns:
        The number of optimizer steps taken.
    """
    completion = json.loads((checkpoint / COMPLETION_FILE).read_text(encoding="utf-8"))
    written_by = completion["world_size"]
    before = trained_settings(checkpoint.parents[1], checkpoint)
    if written_by != world.size and world.is_main:
        print(f"{checkpoint} was written by {written_by} ranks; resuming with {world.size}")
    if written_by == world.size and before and same_groups(before.get("optim"), config.optim):
        with keep_settings(engine):
            loaded, _ = engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
        if loaded is None:
            raise RuntimeError(f"{checkpoint}: DeepSpeed cannot load it; delete it to resume from an older one")
        whole_tensors.ensure_optimizer_state(engine)
    else:
        weights = read_tensors(checkpoint / WEIGHTS)
        averages = read_tensors(checkpoint / AVERAGES) if has_averages(description) else None
        whole_tensors.load(engine, weights, averages, checkpoint / whole_tensors.MOMENTS_FILE)
    return int(completion["step"])
