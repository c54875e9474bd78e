"""What a multi-view test has finished so far, kept on disk so that a killed test goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.atomic import write_json
from lookupvivit.evaluation.predictions import UNREADABLE

Columns = dict[str, np.ndarray]  # one row a video; `video_index` says which
IDENTITY = "test.json"


def join(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class PartialResult:
    """A folder of small .npz files, each with the videos that some rank finished since its last one.

    Every file is named by its first video and appears whole or not at all, so that neither the number of ranks nor
    a kill matters. Batches with a video that could not be read are not kept: it is tried again.

    Args:
        folder: where; made when there is something to keep.
        seconds: between two files of one rank; 0 writes one after every batch.
        restored: rows found there; only the rank that hands them in needs them.
        done: indices of the videos that an interrupted test has finished.
    """

    def __init__(self, folder: Path, seconds: float, restored: Columns | None, done: frozenset[int]) -> None:
        self.folder, self.seconds, self.restored, self.done = folder, seconds, restored, done
        self._waiting: list[Columns] = []
        self._written = time.monotonic()

    def add(self, columns: Columns) -> None:
        """Keep a finished batch, on disk when it is time."""
        if not columns["failed"].astype(bool).any():
            self._waiting.append(columns)
        if time.monotonic() - self._written >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._written = time.monotonic()
        if not self._waiting:
            return
        rows, self._waiting = join(self._waiting), []
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"from_{int(rows['video_index'][0]):08d}.npz"
        with (self.folder / f".{name}.tmp").open("wb") as file:
            np.savez(file, allow_pickle=False, **rows)
        os.replace(self.folder / f".{name}.tmp", self.folder / name)

    def remove(self) -> None:
        """The whole is saved: the parts may go."""
        shutil.rmtree(self.folder, ignore_errors=True)


def restore(folder: Path, identity: dict[str, Any]) -> tuple[Columns | None, list[str]]:
    """Rows that an interrupted test left in ``folder``, and what to tell of it; one rank calls it.

    A result of anything but the same ``identity`` (plain JSON, by key) is removed, and the folder is made ready.
    """
    told = [
        f"{other}: an unfinished test of other views or another compressed size, not used here"
        for other in sorted(folder.parent.glob("*.partial"))
        if other != folder
    ]
    if folder.is_dir() and (differences := _differences(folder, identity)):
        told.append(
            f"{folder}: an unfinished test, but not of the same thing ({'; '.join(differences)}); not reused, "
            "starting anew"
        )
        shutil.rmtree(folder)
    write_json(folder / IDENTITY, identity)
    parts = []
    for file in sorted(folder.glob("*.npz")):
        try:
            with np.load(file, allow_pickle=False) as archive:
                columns = dict(archive)
        except UNREADABLE as error:
            told.append(f"{file}: not readable ({error}); its videos are tested again")
            continue
        if "broken" in columns:  # the column's name in version 0.1
            columns["failed"] = columns.pop("broken")
        parts.append(columns)
    if not parts:
        return None, told
    rows = join(parts)
    _, once = np.unique(rows["video_index"], return_index=True)  # machines without a common disk may repeat a batch
    rows = {name: column[once] for name, column in rows.items()}
    told.append(f"going on with the {len(rows['video_index'])} videos that {folder} holds")
    return rows, told


def _differences(folder: Path, identity: dict[str, Any]) -> list[str]:
    try:
        theirs = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
        keys = sorted(theirs.keys() | identity.keys())
    except (AttributeError, OSError, ValueError) as error:
        return [f"{IDENTITY} cannot be read: {error}"]
    ours = json.loads(json.dumps(identity))  # tuples become lists
    return [f"{key} {theirs.get(key)} there, {ours.get(key)} here" for key in keys if theirs.get(key) != ours.get(key)]
