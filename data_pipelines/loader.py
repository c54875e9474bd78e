"""Which samples come when, and the loaders that fetch them.

The order of training is a pure function of (seed, step): a run resumed at any step, at any number of ranks or
workers, sees the samples that the uninterrupted run would have seen.
"""

from __future__ import annotations

import signal
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from data_pipelines.datasets.clips import ClipDataset
from data_pipelines.io.errors import DataError


@dataclass(frozen=True)
class TrainingOrder:
    """Every epoch is a new permutation of the samples, cut into global batches; what is left is dropped.

    Raises:
        DataError: fewer samples than one batch needs.
    """

    num_samples: int
    global_batch: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.global_batch <= self.num_samples:
            raise DataError(
                f"optim.batch_size: found {self.global_batch} clips per step, but there are {self.num_samples} videos; "
                f"a batch takes each video at most once, so at most {self.num_samples} would fit"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.num_samples // self.global_batch

    def batch(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of every sample in the global batch of ``step``, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch
        indices = _permutation(self.seed, epoch, self.num_samples)[start : start + self.global_batch]
        return [(epoch, int(index)) for index in indices]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_samples)


class _MicroBatches(Sampler[list[tuple[int, int]]]):
    """One rank's micro-batches of the steps from start_step to end_step."""

    def __init__(
        self,
        order: TrainingOrder,
        start_step: int,
        end_step: int,
        rank: int,
        micro_batch: int,
        accumulation: int,
    ) -> None:
        self.order = order
        self.steps = range(start_step, end_step)
        self.first = rank * micro_batch * accumulation  # the rank's contiguous slice of the global batch
        self.micro_batch, self.accumulation = micro_batch, accumulation

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            batch = self.order.batch(step)
            for micro_step in range(self.accumulation):
                start = self.first + micro_step * self.micro_batch
                yield batch[start : start + self.micro_batch]


def train_loader(
    dataset: ClipDataset,
    order: TrainingOrder,
    start_step: int,
    end_step: int,
    rank: int,
    world_size: int,
    micro_batch: int,
    accumulation: int,
    workers: int,
) -> DataLoader:
    """A rank's micro-batches for the steps from ``start_step`` up to ``end_step``, ``accumulation`` per step.

    Raises:
        DataError: micro_batch * accumulation * world_size is not the global batch.
    """
    if micro_batch * accumulation * world_size != order.global_batch:
        raise DataError(
            f"micro_batch {micro_batch} x accumulation {accumulation} x world_size {world_size} = "
            f"{micro_batch * accumulation * world_size}; it must be the global batch of {order.global_batch}"
        )
    sampler = _MicroBatches(order, start_step, end_step, rank, micro_batch, accumulation)
    return _loader(dataset, workers, batch_sampler=sampler, collate_fn=_all_clips)


def eval_loader(
    dataset: Dataset, rank: int, world_size: int, batch_size: int, workers: int, done: Container[int] = ()
) -> DataLoader:
    """A rank's share of the videos. Nothing is padded: the ranks' counts add up.

    The batches are cut from the whole set and dealt out to the ranks, so that a video meets the same others on any
    number of ranks and after a restart: not a bit of its result changes.

    Args:
        done: indices of videos that need not come; a batch of nothing else is left out.
    """
    batches = [range(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    wanted = [list(batch) for batch in batches if not all(index in done for index in batch)]
    return _loader(dataset, workers, batch_sampler=wanted[rank::world_size])


def _loader(dataset: Dataset, workers: int, **sampling: object) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else making an iterator would advance the global generator
        **sampling,
    )


def _all_clips(videos: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """One batch of all clips of all videos."""
    return default_collate([clip for clips in videos for clip in clips])


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)  # one core per worker
    for number in (signal.SIGTERM, signal.SIGUSR1):  # to a whole group of processes they mean: save
        signal.signal(number, signal.SIG_IGN)
