"""Finished videos of a running multi-view test, kept on disk so that an interrupted test continues."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.atomic import write_json
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from lookupvivit.evaluation.array_files import PredictionsError, load_arrays, save_arrays

Columns = dict[str, np.ndarray]  # arrays with one row per video; `video_index` identifies the video
IDENTITY = "test.json"


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Concatenate the rows of all parts."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class PartialResult:
    """A folder of small .npz files, each with the videos that one rank has finished since its previous file.

    Every file is named after its first video and written atomically. The files therefore do not depend on the number of
    ranks, and a kill loses only what was not yet written. A batch with a video that failed is not kept, so that the
    video is tried again.

    Args:
        folder: created with the first file.
        seconds: minimal time between two files of one rank; 0 writes a file after every batch.
        restored: rows that `restore` found; needed only on rank 0.
        finished: indices of the videos that an interrupted test has finished.
    """

    def __init__(self, folder: Path, seconds: float, restored: Columns | None, finished: frozenset[int]) -> None:
        self.folder, self.seconds, self.restored, self.finished = folder, seconds, restored, finished
        self._waiting: list[Columns] = []
        self._last_write = time.monotonic()

    def add(self, columns: Columns) -> None:
        """Keep a finished batch; write a file if it is time."""
        if not columns["failed"].astype(bool).any():
            self._waiting.append(columns)
        if time.monotonic() - self._last_write >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write the batches that are not on disk yet."""
        self._last_write = time.monotonic()
        if not self._waiting:
            return
        rows, self._waiting = concatenate(self._waiting), []
        save_arrays(self.folder / f"from_{int(rows['video_index'][0]):08d}.npz", rows, compress=False)

    def remove(self) -> None:
        """Delete the folder once the complete result is saved."""
        shutil.rmtree(self.folder, ignore_errors=True)


def unfinished_folder(folder: Path, identity: dict[str, Any]) -> tuple[Path, list[str]]:
    """Choose where a test keeps its finished videos: ``folder``, or one with a number if that is of another test.

    The unfinished tests with other settings stay as they are.

    Args:
        folder: with the suffix ``.partial``.
        identity: everything that the logits depend on, as JSON values by name.

    Returns:
        The folder, which may not exist yet; and messages for the user about other unfinished tests.
    """
    others = {
        other: found for other in sorted(folder.parent.glob("*.partial")) if (found := _differences(other, identity))
    }
    messages = [
        f"{other}: not used, it is an unfinished test with other settings ({'; '.join(found)})"
        for other, found in others.items()
    ]
    numbered = (folder.with_name(f"{folder.stem}-{number}{folder.suffix}") for number in count(2))
    return next(path for path in chain([folder], numbered) if path not in others), messages


def restore(folder: Path, identity: dict[str, Any], unit: str = "video") -> tuple[Columns | None, list[str]]:
    """Read what an interrupted test left in ``folder``; call it on one rank.

    The folder is created, with the identity in it.

    Args:
        folder: of the `PartialResult`, chosen by `unfinished_folder`.
        identity: everything that the logits depend on, as JSON values by name.
        unit: what is tested, for messages.

    Returns:
        The rows, or None; and messages for the user.
    """
    messages: list[str] = []
    write_json(folder / IDENTITY, identity)
    parts = []
    for file in sorted(folder.glob("*.npz")):
        try:
            columns = load_arrays(file)
        except PredictionsError as error:
            messages.append(f"{error}; its {unit}s are tested again")
            continue
        if "broken" in columns:  # the column's name in version 0.1
            columns["failed"] = columns.pop("broken")
        parts.append(columns)
    if not parts:
        return None, messages
    rows = concatenate(parts)
    _, first = np.unique(rows["video_index"], return_index=True)  # without a shared disk, ranks may repeat a batch
    rows = {name: column[first] for name, column in rows.items()}
    messages.append(f"continuing with {len(rows['video_index'])} finished {unit}s of {folder}")
    return rows, messages


def _differences(folder: Path, identity: dict[str, Any]) -> list[str]:
    """How the identity in ``folder`` differs from ``identity``; empty if they are equal."""
    try:
        stored = read_json(folder / IDENTITY, dict, max_bytes=SMALL_BYTES)
        keys = sorted(stored.keys() | identity.keys())
    except (AttributeError, OSError, ValueError) as error:
        return [f"{IDENTITY} cannot be read: {error}"]
    current = json.loads(json.dumps(identity))  # tuples become lists
    return [
        f"{key}: {stored.get(key)} before, {current.get(key)} now"
        for key in keys
        if stored.get(key) != current.get(key)
    ]
