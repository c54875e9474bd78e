"""What a run tells: a JSON line per logged step, TensorBoard, and a progress bar with rate, ETA and data wait."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_pipelines.io.progress import progress
from lookupvivit.training.distributed import World

T = TypeVar("T")


class RunLog:
    """Writes on the main rank, does nothing on the others.

    A resumed run drops what it logged after the step it goes on from, so that everything is told once;
    ``validated`` says whether that step's validation was told.
    """

    def __init__(self, run: Path, step: int, total: int, world: World) -> None:
        self.active = world.is_main
        self.validated = True
        if not self.active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.file = run / "log.jsonl"
        kept = _keep_until(self.file, step)
        self.validated = any(record["step"] == step and record["kind"] == "val" for record in kept)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self.bar = progress(total=total, initial=step, unit="step", smoothing=0.05)

    def advance(self, **shown: str) -> None:
        if self.active:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update()

    def scalars(self, step: int, kind: str, **values: float) -> None:
        """One line of log.jsonl and one TensorBoard point per value, named ``kind/name``."""
        if not self.active:
            return
        # not every parser reads NaN and Infinity
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        record = {"step": step, "kind": kind, **finite}
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        for name, value in values.items():
            self.board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 for TensorBoard's image tab."""
        if self.active:
            self.board.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Everything told so far to the disk; log.jsonl is there already."""
        if self.active:
            self.board.flush()

    def say(self, text: str) -> None:
        if self.active:
            self.bar.write(text, file=sys.stdout)

    def close(self) -> None:
        if self.active:
            self.bar.close()
            self.board.close()


def _keep_until(file: Path, step: int) -> list[dict[str, Any]]:
    """Drop what comes after ``step``, and a last line that a killed run left half-written; the records kept."""
    if not file.exists():
        return []
    kept: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step:
            kept.append(record)
    beside = file.with_suffix(".tmp")
    beside.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    os.replace(beside, file)
    return kept


class Stopwatch:
    """Time spent in training steps since the last report, and how much of it waiting for data."""

    def __init__(self) -> None:
        self.elapsed = self.waited = 0.0
        self.clips = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Counts the time of its block; what happens between the blocks (validation, checkpoints) does not count."""
        before = time.perf_counter()
        yield
        self.elapsed += time.perf_counter() - before

    def waiting(self, iterator: Iterator[T]) -> T:
        """Next item of ``iterator``, its wait accounted for."""
        before = time.perf_counter()
        item = next(iterator)
        self.waited += time.perf_counter() - before
        return item

    def report(self) -> tuple[float, float]:
        """(clips per second, share of time spent waiting for data), and start anew."""
        rate, share = self.clips / self.elapsed, self.waited / self.elapsed
        self.elapsed, self.waited, self.clips = 0.0, 0.0, 0
        return rate, share
