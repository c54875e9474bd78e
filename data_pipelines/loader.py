"""The order of samples, and the loaders that read them.

The order of training samples is a function of (seed, step). A run that is resumed at any step, on any number of ranks
or workers, therefore sees the same samples as an uninterrupted run.
"""

from __future__ import annotations

import copy
import multiprocessing
import signal
from collections.abc import Callable, Container, Iterator, Sized
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.context import BaseContext
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from data_pipelines.datasets.clip_stream import ClipStream
from data_pipelines.datasets.clips import ClipDataset
from data_pipelines.io.errors import DataError
from data_pipelines.io.processes import end_with_parent


def balancing_copies(labels: np.ndarray) -> np.ndarray:
    """How often each sample occurs in an epoch in which all classes are as frequent as the largest: int64 (N,).

    Samples of a class occur equally often, or the first ones once more than the others.
    """
    counts = np.bincount(labels)
    place = np.empty(len(labels), dtype=np.int64)  # within the class
    order = np.argsort(labels, kind="stable")
    place[order] = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    whole, rest = np.divmod(counts.max(), np.maximum(counts, 1))
    return whole[labels] + (place < rest[labels])


@dataclass(frozen=True, eq=False)
class TrainingOrder:
    """A new permutation of the samples in every epoch, cut into global batches. Samples that remain are dropped.

    Attributes:
        num_samples: size of the training set.
        global_batch: samples per optimizer step, of all ranks together.
        seed: source of the permutations.
        copies: how often each sample occurs in an epoch, by default once: int (num_samples,), at least 1.

    Raises:
        DataError: a global batch is larger than the training set.
    """

    num_samples: int
    global_batch: int
    seed: int
    copies: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 < self.global_batch <= self.num_samples:
            raise DataError(
                f"global_batch: found {self.global_batch} videos per step, expected 1 to {self.num_samples}, the size "
                "of the training set"
            )

    @property
    def epoch_size(self) -> int:
        """Samples in an epoch, with all copies."""
        return self.num_samples if self.copies is None else int(self.copies.sum())

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.epoch_size // self.global_batch

    def batch(self, step: int) -> list[tuple[int, int]]:
        """(epoch, index) of every sample in the global batch of ``step``, counted from 0.

        Copies of a sample have epochs of their own, because the epoch is what its randomness depends on: with at most c
        copies, those in epoch e have the epochs c e to c e + c - 1.
        """
        epoch, batch_of_epoch = divmod(step, self.steps_per_epoch)
        start = batch_of_epoch * self.global_batch
        places = _permutation(self.seed, epoch, self.epoch_size)[start : start + self.global_batch]
        if self.copies is None:
            return [(epoch, int(index)) for index in places]
        ends = self.copies.cumsum()
        indices = np.searchsorted(ends, places, side="right")
        copy_numbers = places - (ends - self.copies)[indices]
        first = epoch * int(self.copies.max())
        return [(first + int(number), int(index)) for number, index in zip(copy_numbers, indices, strict=True)]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_samples)


class _MicroBatches(Sampler[list[tuple[int, int]]]):
    """The micro-batches of one rank, step by step; its share of a global batch is contiguous."""

    def __init__(self, order: TrainingOrder, steps: range, rank: int, micro_batch: int, accumulation: int) -> None:
        self.order, self.steps = order, steps
        self.micro_batch, self.accumulation = micro_batch, accumulation
        self.offset = rank * micro_batch * accumulation

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            batch = self.order.batch(step)
            for micro_step in range(self.accumulation):
                start = self.offset + micro_step * self.micro_batch
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
    """The micro-batches of one rank for the steps from ``start_step`` to ``end_step``, end excluded.

    Args:
        dataset: yields the clips of one sample for a key (epoch, index).
        order: the order of samples.
        micro_batch: samples per micro-batch.
        accumulation: micro-batches per step.
        workers: loading processes; 0 loads in this process.

    Raises:
        DataError: micro_batch * accumulation * world_size is not the global batch.
    """
    product = micro_batch * accumulation * world_size
    if product != order.global_batch:
        raise DataError(
            f"micro_batch * accumulation * world_size: found {micro_batch} * {accumulation} * {world_size} = "
            f"{product}, expected the global batch, {order.global_batch}"
        )
    sampler = _MicroBatches(order, range(start_step, end_step), rank, micro_batch, accumulation)
    return _loader(dataset, workers, _collate_clips, batch_sampler=sampler)


def eval_loader(
    dataset: Dataset, rank: int, world_size: int, batch_size: int, workers: int, done: Container[int] = ()
) -> DataLoader:
    """One rank's share of the videos, without padding: together, the ranks load each video once.

    Batches are formed from the whole dataset and then distributed over the ranks. A video is therefore always in a
    batch with the same others, on any number of ranks and after a restart, and its results are bit-identical.

    Args:
        dataset: one sample per video.
        batch_size: videos per batch.
        workers: loading processes; 0 loads in this process.
        done: indices of videos that are not needed. A batch is skipped if it has no others.
    """
    num_videos = len(cast(Sized, dataset))
    batches = [list(range(i, min(i + batch_size, num_videos))) for i in range(0, num_videos, batch_size)]
    needed = [batch for batch in batches if not all(index in done for index in batch)]
    return _loader(dataset, workers, default_collate, batch_sampler=needed[rank::world_size])


def stream_loader(stream: ClipStream, workers: int) -> DataLoader:
    """The batches of a stream, read by ``workers`` processes; 0 reads in this process."""
    return _loader(stream, workers, _unchanged, batch_size=None)


def _loader(dataset: Dataset, workers: int, collate: Callable[[Any], dict[str, Any]], **batching: Any) -> DataLoader:
    return DataLoader(
        dataset,
        **batching,
        collate_fn=partial(_collate_in_shared_memory, collate),
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context=_worker_context() if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # otherwise each iterator would advance the global generator
    )


def _collate_clips(samples: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """One batch of all clips of all samples; generators become a list."""
    clips = [clip for clips in samples for clip in clips]
    return collate(clips, collate_fn_map={**default_collate_fn_map, np.random.Generator: _unchanged_batch})


def _unchanged_batch(batch: list[Any], *, collate_fn_map: Any = None) -> list[Any]:
    return batch


def _unchanged(batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def _collate_in_shared_memory(collate: Callable[[Any], dict[str, Any]], samples: Any) -> dict[str, Any]:
    """Collate; in a worker, move all tensors to shared memory.

    Otherwise the thread that sends a batch would move them. If there is no space left, it would drop the batch, for
    which the training process would wait forever.
    """
    batch = collate(samples)
    if get_worker_info() is not None:
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.share_memory_()
    return batch


class _Worker(multiprocessing.Process):
    """A loading process that is killed where others are terminated, because it ignores SIGTERM.

    multiprocessing terminates its children when this process ends, and waits for them: a child that ignores it would
    keep this process from ending after an exception.
    """

    def start(self) -> None:
        super().start()
        process: Any = self
        process._popen.terminate = process._popen.kill


def _worker_context() -> BaseContext:
    """The platform's way to start processes, with `_Worker` as the class of processes."""
    context: Any = copy.copy(multiprocessing.get_context())
    context.Process = _Worker
    return context


def _start_worker(worker: int) -> None:
    end_with_parent()
    torch.set_num_threads(1)  # one core per worker
    # A signal to the whole process group asks the trainer to save; the workers must keep loading until it has.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
