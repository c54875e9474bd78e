"""Statistics of training steps between two reports: losses, throughput, waiting time and utilization."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from lookupvivit.training.distributed import World
from lookupvivit.training.losses import TaskLoss
from lookupvivit.training.utilization import ModelFlopsUtilization, peak_memory

T = TypeVar("T")


class TrainMeter:
    """Collects statistics of training steps on this rank; `report` returns and resets them.

    Args:
        utilization: counts the model FLOPs of the steps.
        world: the ranks.
    """

    def __init__(self, utilization: ModelFlopsUtilization, world: World) -> None:
        self.utilization, self.world = utilization, world
        self._reset()

    def _reset(self) -> None:
        self._losses: list[Tensor] = []
        self._scores: dict[str, list[Tensor]] = {}
        self._clips = 0
        self._elapsed = self._waited = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a training step. What runs between steps (validation, checkpoints) does not count."""
        start = time.perf_counter()
        yield
        self._elapsed += time.perf_counter() - start

    def next_batch(self, batches: Iterator[T]) -> T:
        """The next item of ``batches``; the time it takes counts as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, result: TaskLoss, num_clips: int) -> None:
        """Count a micro-batch of this rank: its losses and scores, and its number of clips."""
        self._losses.append(result.losses.detach())
        for name, score in result.scores.items():
            self._scores.setdefault(name, []).append(score.detach())
        self._clips += num_clips * self.world.size

    def report(self) -> tuple[list[float], dict[str, float]]:
        """Mean losses (S,) over ranks and steps, and the other statistics by name, since the last report; collective.

        After a resume, the first report covers only the steps of this process. ``clips_per_second`` counts all ranks;
        ``data_wait`` is a share of the time, ``mfu`` of the device's peak (NaN: unknown); ``memory`` is the peak in GB
        (1e9 bytes) since the start of this process.
        """
        losses = self.world.mean(torch.stack(self._losses).mean(dim=0)).tolist()
        scores = {name: self.world.mean(torch.stack(values).mean()).item() for name, values in self._scores.items()}
        statistics = {
            **scores,
            "clips_per_second": self._clips / self._elapsed,
            "data_wait": self._waited / self._elapsed,
            "mfu": self.utilization.report(self._elapsed),
            "memory": peak_memory(self.world.device),
        }
        self._reset()
        return losses, statistics
