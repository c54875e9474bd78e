"""Training videos that cannot be read: counted over all ranks, listed in the run directory, and limited."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist

from data_pipelines.io.atomic import write_text
from data_pipelines.io.errors import DataError
from data_pipelines.io.text import intact_lines, printable
from data_pipelines.video.reader import failed_path
from lookupvivit.training.distributed import World

FILE = "failed_videos.txt"  # one line per video: the reason, which starts with its path
EARLIER_FILE = "broken_videos.txt"  # its name in runs of version 0.1


class FailedVideos:
    """Collects the videos that the loader had to replace by others.

    A video counts once, whatever its reasons: other frames of a damaged file may fail in other ways.

    Args:
        run_dir: holds `FILE`, which a resumed run continues.
        num_videos: number of training videos.
        limit: share of them that may fail.
        world: the ranks.
        unit: what the videos are called in messages.

    Attributes:
        reasons: the first reason of each failed video so far, of all ranks, by path.
    """

    def __init__(self, run_dir: Path, num_videos: int, limit: float, world: World, unit: str = "video") -> None:
        self.file, self.num_videos, self.limit, self.world = run_dir / FILE, num_videos, limit, world
        self.unit = unit
        self.reasons: dict[str, str] = {}
        for file in (run_dir / EARLIER_FILE, self.file):
            for line in filter(str.strip, intact_lines(file)):
                self.reasons.setdefault(failed_path(line), line)
        self._new: dict[str, str] = {}  # of this rank, since the last `gather`

    def add(self, reasons: Iterable[str]) -> None:
        """Take over the ``failed`` field of a batch."""
        for lines in reasons:
            for line in filter(None, map(printable, lines.split("\n"))):
                if (path := failed_path(line)) not in self.reasons:
                    self._new.setdefault(path, line)

    def gather(self) -> list[str]:
        """List the videos that newly failed on any rank in `FILE`; collective.

        Returns:
            Their reasons, in the same order on each rank.

        Raises:
            DataError: more than the permitted share of the videos has failed.
        """
        if not self.world.any(bool(self._new)):
            return []
        per_rank: list[dict[str, str]] = [self._new]
        if self.world.size > 1:
            per_rank = [{}] * self.world.size
            dist.all_gather_object(per_rank, self._new)
        new: dict[str, str] = {}
        for reasons in per_rank:
            for path in reasons.keys() - self.reasons.keys():
                new.setdefault(path, reasons[path])
        self.reasons.update(sorted(new.items()))
        self._new = {}
        if self.world.is_main and new:
            write_text(self.file, "".join(f"{reason}\n" for reason in self.reasons.values()))
        # Ranks may have read different files of an earlier start, for example from a network file system's cache.
        if self.world.any(len(self.reasons) > self.limit * self.num_videos):
            raise DataError(
                f"data.max_failed: {len(self.reasons)} of {self.num_videos} training {self.unit}s cannot be read, more "
                f"than {self.limit:.2%}; {self.file} lists them. Check the dataset, or raise data.max_failed"
            )
        return [new[path] for path in sorted(new)]
