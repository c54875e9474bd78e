"""Training videos that cannot be read: counted over all ranks, listed in the run directory, and not too many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist

from data_pipelines.io.errors import DataError
from lookupvivit.training.distributed import World


class BrokenVideos:
    """Collects what the loader says of videos that others had to stand in for.

    Args:
        file: list of them, one reason a line; a resumed run goes on with it.
        videos: number of training videos.
        share: of them that may be broken.
        world: the ranks.

    Attributes:
        seen: every reason so far, of all ranks.
    """

    def __init__(self, file: Path, videos: int, share: float, world: World) -> None:
        self.file, self.videos, self.share, self.world = file, videos, share, world
        self.seen: set[str] = set(file.read_text(encoding="utf-8").splitlines()) if file.exists() else set()
        self._new: set[str] = set()

    def note(self, reasons: Iterable[str]) -> None:
        """What a batch's ``broken`` field says."""
        for lines in reasons:
            self._new.update(set(lines.splitlines()) - self.seen)

    def gather(self) -> list[str]:
        """What is new on any rank, in the same order on all of them; collective.

        Raises:
            DataError: more than the permitted share of the videos is broken.
        """
        if not self.world.any(bool(self._new)):
            return []
        of_ranks: list[set[str]] = [self._new]
        if self.world.size > 1:
            of_ranks = [set()] * self.world.size
            dist.all_gather_object(of_ranks, self._new)
        new = sorted(set().union(*of_ranks) - self.seen)
        self.seen.update(new)
        self._new = set()
        if self.world.is_main and new:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.writelines(f"{reason}\n" for reason in new)
        if len(self.seen) > self.share * self.videos:
            raise DataError(
                f"{len(self.seen)} of {self.videos} training videos cannot be read, more than data.max_broken = "
                f"{self.share:.2%}; they are listed in {self.file}. Check the collection, or raise data.max_broken"
            )
        return new
