"""The log of a run: log.jsonl, trackers such as TensorBoard, and a progress bar with rate and ETA."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.atomic import DISK_ERRORS, full_disk_names, sync, write_text
from data_pipelines.io.errors import first_line
from data_pipelines.io.json_files import read_json_lines
from data_pipelines.io.progress import progress
from lookupvivit.training.distributed import World
from lookupvivit.training.trackers import Tracker

FILE = "log.jsonl"


class RunLog:
    """Writes on rank 0; all methods do nothing on other ranks.

    A resumed run first removes the records after the step at which it resumes, so that every step is logged once.

    Args:
        run_dir: holds log.jsonl.
        step: optimizer steps taken so far.
        total: optimizer steps of the whole run.
        world: the ranks.
        trackers: of rank 0.

    Attributes:
        validated: whether the validation of ``step`` is in the log; also False where none was due.
        status: what the progress bar shows, by name.
    """

    def __init__(self, run_dir: Path, step: int, total: int, world: World, trackers: Sequence[Tracker] = ()) -> None:
        self.run_dir, self.active, self.trackers = run_dir, world.is_main, list(trackers)
        self.validated = True
        self.status: dict[str, str] = {}
        if not self.active:
            return
        self.file = run_dir / FILE
        kept = _remove_after(self.file, step)
        self.validated = any(record["step"] == step and record["kind"] == "val" for record in kept)
        self.bar = progress(total=total, initial=step, unit="step", smoothing=0.05)

    def advance(self) -> None:
        """Advance the progress bar by one step and show `status`."""
        if self.active:
            self.bar.set_postfix(self.status, refresh=False)
            self.bar.update()

    def scalars(self, step: int, kind: str, **values: float) -> None:
        """Write one line to log.jsonl, and the values to the trackers, named ``kind/name``."""
        if not self.active:
            return
        named = {f"{kind}/{name}": value for name, value in values.items()}
        self._track(lambda tracker: tracker.scalars(step, named))
        if kind == "val":
            # After a kill, a validation in log.jsonl is not repeated, so the trackers must have it by then.
            self._track(lambda tracker: tracker.flush())
        # NaN and Infinity are no JSON.
        self._write(step, kind, **{name: value if math.isfinite(value) else None for name, value in values.items()})

    def settings(self, step: int, changes: list[str]) -> None:
        """Write the settings that have changed from ``step`` on, if any, to log.jsonl."""
        if self.active and changes:
            self._write(step, "settings", changes=changes)

    def _write(self, step: int, kind: str, **values: Any) -> None:
        with full_disk_names(self.file), self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write an image (H, W, 3) uint8 to the trackers."""
        if self.active:
            self._track(lambda tracker: tracker.image(step, name, image))

    def print(self, text: str) -> None:
        """Print above the progress bar."""
        if self.active:
            self.bar.write(text, file=sys.stdout)

    def flush(self) -> None:
        """Write what is pending in the trackers, and flush log.jsonl to the disk."""
        if self.active:
            self._track(lambda tracker: tracker.flush())
            if self.file.exists():
                sync(self.file)

    def close(self) -> None:
        """Close the progress bar and the trackers."""
        if self.active:
            self.bar.close()
            self._track(lambda tracker: tracker.close())

    def _track(self, record: Callable[[Tracker], None]) -> None:
        """Apply ``record`` to all trackers. One that fails, as a server may, is reported and not used any more."""
        for tracker in tuple(self.trackers):
            try:
                record(tracker)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                    raise
                self.trackers.remove(tracker)
                self.print(f"NOTE log.trackers: {type(tracker).__name__} is not used any more: {first_line(error)}")


def _remove_after(file: Path, step: int) -> list[dict[str, Any]]:
    """Remove the records after ``step``, and lines that a crash has damaged. Returns the remaining records.

    Settings that changed at ``step`` are those of the removed steps.
    """
    if not file.exists():
        return []
    records = [record for record in read_json_lines(file, "step", "kind") if isinstance(record["step"], int)]
    kept = [r for r in records if r["step"] < step or (r["step"] == step and r["kind"] != "settings")]
    write_text(file, "".join(json.dumps(record) + "\n" for record in kept))
    return kept
