"""Training videos that cannot be read: counted over all ranks, listed in the run directory, and limited."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist

from data_pipelines.io.errors import DataError
from data_pipelines.io.text import numbered_lines, printable
from lookupvivit.training.distributed import World

FILE = "failed_videos.txt"  # one reason per line
EARLIER_FILE = "broken_videos.txt"  # its name in runs of version 0.1


class FailedVideos:
    """Collects the videos that the loader had to replace by others.

    Args:
        run_dir: holds `FILE`, which a resumed run continues.
        num_videos: number of training videos.
        limit: share of them that may fail.
        world: the ranks.
        unit: what the videos are called in messages.

    Attributes:
        reasons: all reasons so far, of all ranks.
    """

    def __init__(self, run_dir: Path, num_videos: int, limit: float, world: World, unit: str = "video") -> None:
        self.file, self.num_videos, self.limit, self.world = run_dir / FILE, num_videos, limit, world
        self.unit = unit
        self.reasons: set[str] = set()
        for file in (self.file, run_dir / EARLIER_FILE):
            if file.exists():
                self.reasons.update(line.rstrip("\n") for _, line in numbered_lines(file))
        self._new: set[str] = set()

    def add(self, reasons: Iterable[str]) -> None:
        """Take over the ``failed`` field of a batch."""
        for lines in reasons:
            self._new.update({printable(line) for line in lines.split("\n") if line} - self.reasons)

    def gather(self) -> list[str]:
        """New reasons of all ranks, in the same order on each; collective.

        Raises:
            DataError: more than the permitted share of the videos has failed.
        """
        if not self.world.any(bool(self._new)):
            return []
        per_rank: list[set[str]] = [self._new]
        if self.world.size > 1:
            per_rank = [set()] * self.world.size
            dist.all_gather_object(per_rank, self._new)
        new = sorted(set().union(*per_rank) - self.reasons)
        self.reasons.update(new)
        self._new = set()
        if self.world.is_main and new:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.writelines(f"{reason}\n" for reason in new)
        # Ranks may have read different files of an earlier start, for example from a network file system's cache.
        if self.world.any(len(self.reasons) > self.limit * self.num_videos):
            raise DataError(
                f"data.max_failed: {len(self.reasons)} of {self.num_videos} training {self.unit}s cannot be read, more "
                f"than {self.limit:.2%}; {self.file} lists them. Check the dataset, or raise data.max_failed"
            )
        return new
