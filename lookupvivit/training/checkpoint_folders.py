"""The checkpoints of a run directory: which are intact, which one a run resumes from, and which are removed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from functools import lru_cache
from pathlib import Path

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.hashing import file_digest
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from lookupvivit.config import ConfigError
from lookupvivit.training.distributed import VISIBILITY_SECONDS, World
from lookupvivit.training.run_directory import CHECKPOINTS, identity_of, read_identity, set_aside

COMPLETION_FILE = "state.json"  # written last
STATE_KEYS = ("step", "world_size")  # of `COMPLETION_FILE`, with integers
NAME = re.compile(r"step_(\d+)")
NONE, NONE_INTACT = -1, -2  # instead of a step
DIGEST_BITS = 48  # of state.json, in what ranks compare


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` optimizer steps is."""
    return run_dir / CHECKPOINTS / f"step_{step:08d}"


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, intact or not, newest first."""
    folders = [path for path in (run_dir / CHECKPOINTS).glob("step_*") if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(folders, key=_step_of, reverse=True)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


# ----------------------------------------------------------------------------------------------------------------------
# Finding and verifying


def newest_intact(run_dir: Path, world: World) -> Path | None:
    """The newest checkpoint whose files are as they were written, the same on all ranks; None without checkpoints.

    Newer ones, which are corrupt or of another run, are reported and set aside. Collective.

    Raises:
        ConfigError: there are only such checkpoints, or ranks do not see the same files.
    """
    step = world.from_main(_newest_intact_step(run_dir) if world.is_main else NONE)
    if step == NONE:
        return None
    if step == NONE_INTACT:
        raise ConfigError(
            f"output_dir: all checkpoints in {run_dir / CHECKPOINTS} are corrupt or of another run; move them "
            f"elsewhere to start again, for example with init_from={run_dir}"
        )
    checkpoint = checkpoint_folder(run_dir, step)
    _require_same_files(checkpoint, world)
    return checkpoint


def _newest_intact_step(run_dir: Path) -> int:
    identity = read_identity(run_dir)
    unusable: list[Path] = []
    for checkpoint in checkpoints(run_dir):
        problem = find_problem(checkpoint, identity)
        if problem is None:
            if unusable:
                print(f"moved to {set_aside(unusable, run_dir)}: {', '.join(path.name for path in unusable)}")
            return _step_of(checkpoint)
        print(f"checkpoint {checkpoint} is {problem}")
        unusable.append(checkpoint)
    return NONE_INTACT if unusable else NONE


def _require_same_files(checkpoint: Path, world: World) -> None:
    """Check that every rank sees the checkpoint as rank 0 does; collective. A network file system may need some time.

    Raises:
        ConfigError: a rank does not.
    """
    expected = world.from_main(_fingerprint(checkpoint))
    deadline = time.monotonic() + VISIBILITY_SECONDS
    while (is_same := _fingerprint(checkpoint) == expected) is False and time.monotonic() < deadline:
        time.sleep(0.1)
    if world.any(not is_same):
        who = "some rank" if is_same else f"rank {world.rank} on {socket.gethostname()}"
        raise ConfigError(f"output_dir: {who} does not see {checkpoint.absolute()} as rank 0 does; start again")


def _fingerprint(checkpoint: Path) -> int:
    """Equal on all ranks that see the same state.json, which has the hashes of all files, and all of these files."""
    try:
        files = read_json(checkpoint / COMPLETION_FILE, dict, max_bytes=SMALL_BYTES).get("files", {})
        digest = file_digest(checkpoint / COMPLETION_FILE)
    except (OSError, DataError):
        return NONE
    return int(digest[: DIGEST_BITS // 4], 16) if all((checkpoint / name).is_file() for name in files) else NONE


def file_hashes(folder: Path) -> dict[str, str]:
    """The hash of every file in a checkpoint except `COMPLETION_FILE`, by relative path."""
    return {name: file_digest(folder / name) for name in _file_names(folder)}


def _file_names(folder: Path) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETION_FILE)
    return [str(file.relative_to(folder)) for file in files]


def find_problem(checkpoint: Path, identity: str | None) -> str | None:
    """Why a checkpoint cannot be used by the run with this identity; None if it can.

    Files are read once as long as they have the same size and time of modification.
    """
    found = identity_of(checkpoint)
    if found and identity and found != identity:
        return f"of another run: found {found} in its model.json, expected {identity}"
    files = [checkpoint / name for name in (COMPLETION_FILE, *_file_names(checkpoint))]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    reason = _find_corruption(checkpoint, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))
    return None if reason is None else f"corrupt: {reason}"


@lru_cache(maxsize=1024)
def _find_corruption(checkpoint: Path, version: tuple[tuple[Path, int, int], ...]) -> str | None:
    """What is wrong with a checkpoint's files, which are in this ``version``; None if they are as they were written."""
    name = COMPLETION_FILE
    try:
        completion = read_json(checkpoint / name, max_bytes=SMALL_BYTES)
        if not (isinstance(completion, dict) and all(isinstance(completion.get(key), int) for key in STATE_KEYS)):
            return f"{name} is incomplete"
        present = {*_file_names(checkpoint)}  # other names may lead out of the folder, or to files without an end
        for name, expected in completion.get("files", {}).items():
            if name not in present:
                return f"{name} is missing"
            if file_digest(checkpoint / name) != expected:
                return f"{name} has changed since it was written"
    except MissingDataError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    except (AttributeError, DataError):  # only JSON raises these
        return f"{name} is not as it was written"
    return None


# ----------------------------------------------------------------------------------------------------------------------
# Removing


def remove_old(run_dir: Path, saved: Path, keep: int) -> None:
    """Remove all checkpoints but ``saved`` and the newest others that are intact, ``keep`` in all.

    What is corrupt or of another run is reported and set aside.
    """
    identity, kept = read_identity(run_dir), 1
    unusable: list[Path] = []
    for checkpoint in checkpoints(run_dir):
        if checkpoint == saved:
            continue
        if problem := find_problem(checkpoint, identity):
            print(f"checkpoint {checkpoint} is {problem}")
            unusable.append(checkpoint)
        elif kept < keep:
            kept += 1
        else:
            _remove(checkpoint)
    if unusable:
        print(f"moved to {set_aside(unusable, run_dir)}: {', '.join(path.name for path in unusable)}")


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint; failing to do so only costs disk space, and is printed."""
    temporary = checkpoint.with_name(f".{checkpoint.name}")  # so that nothing finds what a kill leaves
    try:
        os.replace(checkpoint, temporary)
        shutil.rmtree(temporary)
    except OSError as error:
        print(f"old checkpoint {checkpoint} cannot be removed ({error.strerror})")
