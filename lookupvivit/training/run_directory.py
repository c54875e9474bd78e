"""Which run the contents of a run directory belong to, and which settings it was trained with.

A run has a random identity from its first start on. It is in run.json, and in the model.json of its checkpoints, its
best model and its published model. What has another identity is neither used nor replaced: it is moved to a folder
``set_aside_N``, which nothing reads. Runs that began before there were identities have none in their first files; these
are recognised by their model, data and optimizer.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import PREFIX, create_folder, move, sync, write_json, write_text
from data_pipelines.io.errors import DataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import changes, read_settings, to_dict, to_yaml
from lookupvivit.training.distributed import SEEN_BY_ALL, World
from lookupvivit.training.failed_videos import EARLIER_FILE as EARLIER_FAILED_VIDEOS
from lookupvivit.training.failed_videos import FILE as FAILED_VIDEOS
from lookupvivit.training.logging import FILE as LOG
from lookupvivit.training.schedule import Batching, Plan
from lookupvivit.weights.files import DESCRIPTION, TOKENIZER, WEIGHTS, WeightsError, read_description

BEST = "best"
CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
IDENTITY_FILE = "run.json"
IDENTITY = "run"  # key in `IDENTITY_FILE` and model.json
MODEL_FILES = (WEIGHTS, DESCRIPTION, TOKENIZER)
RESULTS = ("attention", "captions", "predictions", "tensorboard")  # folders of figures, scores and curves
PUBLISHING = ".publishing-"  # start of the names of temporary folders
TEMPORARY = (f"{CHECKPOINTS}/.step_*", f".{BEST}", f"{PUBLISHING}*", f"{SEEN_BY_ALL}*")
CONSTRAINTS = {  # in model.json, and the configuration's key
    "repeats": "data.repeats",
    "seed": "seed",
    "batch_size": "optim.batch_size",
    "optimizer": "optim.name",
    "ema_decay": "optim.ema_decay",
    "precision": "runtime.precision",
    "zero_stage": "runtime.zero_stage",
    "balance_classes": "data.balance_classes",
    "freeze_blocks": "optim.freeze_blocks",
}
LATER_CONSTRAINTS = {"balance_classes": False, "freeze_blocks": 0}  # which earlier checkpoints do not contain
EARLIER_CONSTRAINTS = {"videos": "num_videos"}  # names of constraints in version 0.1
WRITTEN = {CONFIG, IDENTITY_FILE, LOG, FAILED_VIDEOS, *MODEL_FILES}  # also by way of temporary folders

# ----------------------------------------------------------------------------------------------------------------------
# Identity


def claim(run_dir: Path, checkpoint: Path | None, description: dict[str, Any], world: World) -> str:
    """The identity of a run, which is written to run.json; what other runs left is set aside. Collective.

    Args:
        checkpoint: from which the run resumes; None for a new run.
        description: the run's model.json.

    Returns:
        The identity on rank 0, which writes all files; elsewhere "".

    Raises:
        ConfigError: best/ is a folder of something else, such as of a run with that name.
    """
    identity, old = "", []
    if world.is_main:
        identity = (checkpoint and (identity_of(checkpoint) or read_identity(run_dir))) or secrets.token_hex(16)
        old = _files_of_others(run_dir, checkpoint is None, {**description, IDENTITY: identity})
    best = run_dir / BEST
    if world.any(best in old and not is_model_folder(best)):
        raise ConfigError(f"output_dir: {best} is not the best model of a run; move it, or set another output_dir")
    if old:
        names = ", ".join(path.name for path in old)
        print(f"{run_dir} has files that are damaged or not of this run: {names} moved to {set_aside(old, run_dir)}")
    if world.is_main:
        write_json(run_dir / IDENTITY_FILE, {IDENTITY: identity})
    return identity


def _files_of_others(run_dir: Path, is_new: bool, description: dict[str, Any]) -> list[Path]:
    """The files of another run that this one would replace at once; models are replaced by `checkpointing.publish`."""
    best = run_dir / BEST
    if not is_new:
        return [best] if best.exists() and not belongs(best, description) else []
    names = [FAILED_VIDEOS, EARLIER_FAILED_VIDEOS]  # or they would count as failed in this run
    has_model = best.exists() or (run_dir / WEIGHTS).exists()
    if has_model:
        names += [BEST, *RESULTS]
    if has_model or read_identity(run_dir) is None:  # otherwise they are of a start without a checkpoint, of this run
        names += [CONFIG, IDENTITY_FILE, LOG]
    return [run_dir / name for name in sorted(names) if (run_dir / name).exists()]


def read_identity(run_dir: Path) -> str | None:
    """The identity in run.json; None without this file."""
    return _read_key(run_dir / IDENTITY_FILE)


def identity_of(folder: Path) -> str | None:
    """The identity in the model.json of ``folder``; None if there is none."""
    return _read_key(folder / DESCRIPTION)


def _read_key(file: Path) -> str | None:
    try:
        return read_json(file, dict, max_bytes=SMALL_BYTES).get(IDENTITY)
    except DataError:
        return None


def belongs(folder: Path, description: dict[str, Any]) -> bool:
    """Whether the model in ``folder`` is of the run with this model.json."""
    try:
        saved = read_description(folder)
    except WeightsError:
        return False
    if IDENTITY in saved:
        return saved[IDENTITY] == description[IDENTITY]
    return not differences(saved, description)


def resume_constraints(config: RunConfig, num_videos: int) -> dict[str, Any]:
    """Settings that the optimizer state, schedule and sample order depend on; a resumed run must have the same."""
    return {"num_videos": num_videos} | {name: attrgetter(key)(config) for name, key in CONSTRAINTS.items()}


def differences(saved: dict[str, Any], description: dict[str, Any]) -> list[str]:
    """How a model.json differs from that of this run in model, data and optimizer: ``optim.batch_size: 8 -> 16``.

    The number of repeats is not compared if it is not known, as in version 0.1.
    """
    expected = {key: value for key, value in description.items() if key != IDENTITY}
    found = {key: saved.get(key) for key in expected}
    if isinstance(training := found.get("training"), dict):
        constraints = {EARLIER_CONSTRAINTS.get(key, key): value for key, value in training.items()}
        for key in expected["training"].keys() - constraints.keys() & LATER_CONSTRAINTS.keys():
            constraints[key] = LATER_CONSTRAINTS[key]
        if "repeats" in expected["training"]:
            constraints.setdefault("repeats", expected["training"]["repeats"])
        found["training"] = constraints
    return changes(_by_config_key(found), _by_config_key(expected))


def _by_config_key(description: dict[str, Any]) -> dict[str, Any]:
    constraints = description.get("training")
    if not isinstance(constraints, dict):
        return description
    others = {key: value for key, value in description.items() if key != "training"}
    return others | {CONSTRAINTS.get(name, str(name)): value for name, value in constraints.items()}


def start_messages(config: RunConfig, step: int, batching: Batching, plan: Plan, world: World) -> list[str]:
    """Batch size, length, precision, and where the run starts."""
    runtime, run_dir = config.runtime, config.output_dir
    messages = [
        f"{batching}; {plan.total} steps, {plan.steps_per_epoch} per epoch; {runtime.precision}, "
        f"ZeRO {runtime.zero_stage}, on {world.device.type}"
    ]
    if step >= plan.total:
        messages.append(f"{run_dir} is already finished ({step} steps); set another output_dir to train again")
    elif step:
        messages.append(f"resuming from step {step} of {plan.total}")
    else:
        messages.append(f"starting from {config.init_from or 'scratch'} in {run_dir}")
    if plan.warmup > plan.total > step:
        messages.append(f"NOTE: optim.lr is never reached: {plan.warmup} warmup steps, {plan.total} steps in all")
    return messages


def is_model_folder(folder: Path) -> bool:
    """Whether ``folder`` has a model, and no run."""
    return (folder / DESCRIPTION).is_file() and not any((folder / name).exists() for name in (CHECKPOINTS, CONFIG, LOG))


# ----------------------------------------------------------------------------------------------------------------------
# Old files


def set_aside(paths: Iterable[Path], run_dir: Path) -> Path:
    """Move files and folders to a new folder ``set_aside_N`` of the run, which is returned."""
    number = 1
    while (folder := run_dir / f"set_aside_{number}").exists():
        number += 1
    create_folder(folder)
    for path in paths:
        move(path, folder / path.name)  # checkpoints/ may be a link to another disk
        sync(path.parent)
    sync(folder)
    return folder


def remove_leftovers(run_dir: Path) -> None:
    """Remove what a killed run had not completely written or removed.

    Only of the run itself: other programs may be writing their results into the run directory at this moment.
    """
    leftovers = [path for pattern in TEMPORARY for path in run_dir.glob(pattern)]
    folders = [run_dir, *([run_dir / BEST] if is_model_folder(run_dir / BEST) else [])]
    for folder in folders:
        leftovers += [path for path in folder.glob(f"{PREFIX}*") if _is_own(path)]
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_own(temporary: Path) -> bool:
    try:
        names = {path.name for path in temporary.iterdir()}
    except OSError:  # another program is done with it
        return False
    return bool(names) and names <= WRITTEN


# ----------------------------------------------------------------------------------------------------------------------
# Settings


def trained_settings(run_dir: Path, checkpoint: Path) -> dict[str, Any] | None:
    """The settings that a checkpoint was trained with; None if they are not known.

    Checkpoints of version 0.1 do not contain them, but their run directory does.
    """
    for file in (checkpoint / CONFIG, run_dir / CONFIG):
        if file.is_file():
            return read_settings(file)
    return None


def begin(config: RunConfig, run_dir: Path, checkpoint: Path | None, step: int, finished: bool) -> list[str]:
    """Write the config.yaml of a new run; print and return the settings that a resumed run changes.

    config.yaml states what the newest checkpoint was trained with. A resumed run therefore replaces it when it saves
    its first checkpoint, and a finished run does not.
    """
    if checkpoint is None:
        write_text(run_dir / CONFIG, to_yaml(config))
        return []
    before = trained_settings(run_dir, checkpoint)
    changed = changes(before, to_dict(config)) if before else []
    if finished and (checkpoint / CONFIG).is_file():
        write_text(run_dir / CONFIG, (checkpoint / CONFIG).read_text(encoding="utf-8"))
    if changed and finished:
        print(f"settings NOT used, because the run is finished: {'; '.join(changed)}")
    elif changed:
        print(f"step {step}: settings changed since this checkpoint: {'; '.join(changed)}")
    return [] if finished else changed
