"""Clips of videos of any length, decoded in workers: the views of a test, or a sliding window.

Unlike a sample of `data_pipelines.datasets.clips`, which is a whole video, a batch here is a few clips of a video, so a
long video needs no more memory than a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from data_pipelines.io.errors import DataError
from data_pipelines.preprocess import Preprocess, Reader, open_any


class View(NamedTuple):
    """One crop of one clip.

    Attributes:
        start, end: of the clip, in seconds from the video's first frame.
        clip_index, aug_index: which clip and which crop.
        video: uint8 (3, T, crop, crop).
    """

    start: float
    end: float
    clip_index: int
    aug_index: int
    video: Tensor


@dataclass(frozen=True)
class ViewSelection:
    """Which clips of a video are read.

    Attributes:
        num_clips, num_crops: evenly spaced clips and their crops, the views of a multi-view test.
        window: if set, the central crops of clips that start this many seconds apart are read instead, from the first
            frame to the last.
    """

    num_clips: int = 1
    num_crops: int = 1
    window: float | None = None

    def views(self, reader: Reader, preprocess: Preprocess) -> Iterator[View]:
        """Read an open video.

        Raises:
            DataError: the video cannot be decoded, or a number is out of range.
        """
        if self.window is not None:
            for number, timed in enumerate(preprocess.clips(reader, self.window)):
                yield View(timed.start, timed.end, number, 0, timed.video)
            return
        num_frames, fps = reader.num_frames, reader.fps  # fps is a Fraction
        clips = preprocess.sampling.test_clips(num_frames, fps, self.num_clips)  # (C, T)
        videos, _ = preprocess.views_of(reader, clips, self.num_crops)  # (C * crops, 3, T, crop, crop)
        seconds = preprocess.sampling.clip_seconds(num_frames, fps)
        for number, video in enumerate(videos):
            clip, crop = divmod(number, self.num_crops)
            start = int(clips[clip, 0]) / fps
            end = min(start + seconds, num_frames / fps)
            yield View(float(start), float(end), clip, crop, video)


class ClipStream(IterableDataset):
    """Batches of views. Every loading worker reads its share of the groups of videos.

    A batch never has views of two groups. It is therefore the same with any number of workers.

    Args:
        paths: the videos.
        groups: indices of videos whose views share batches. A group of several videos fills batches with images.
        preprocess: of the model.
        selection: which views are read.
        batch_size: maximal number of views in a batch.
        open_reader: opens a video for a ``with`` block.
    """

    def __init__(
        self,
        paths: Sequence[str],
        groups: Sequence[Sequence[int]],
        preprocess: Preprocess,
        selection: ViewSelection,
        batch_size: int,
        open_reader: Callable[[str], AbstractContextManager[Reader]] = open_any,
    ) -> None:
        self.paths, self.groups, self.preprocess = paths, groups, preprocess
        self.selection, self.batch_size, self.open_reader = selection, batch_size, open_reader

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield batches of b views, b >= 0, see `_batch`; the last one of a group has its ``finished`` videos."""
        worker = get_worker_info()
        for group in self.groups[worker.id :: worker.num_workers] if worker else self.groups:
            waiting: list[tuple[int, View]] = []
            failed: dict[int, str] = {}
            for index in group:
                try:
                    with self.open_reader(self.paths[index]) as reader:
                        for view in self.selection.views(reader, self.preprocess):
                            waiting.append((index, view))
                            if len(waiting) == self.batch_size:
                                yield _batch(waiting)
                                waiting = []
                except (DataError, OSError) as error:
                    failed[index] = str(error)
            yield {**_batch(waiting), "finished": [index for index in group if index not in failed], "failed": failed}


def _batch(views: Sequence[tuple[int, View]]) -> dict[str, Any]:
    """``video`` uint8 (b, 3, T, crop, crop), or (0,) without views, and per view the other fields of `View`.

    ``video_index`` (b,) is the video of each view. ``finished`` are the indices of videos of which all views have been
    read, and ``failed`` the reasons why others cannot be read, by index; their views are invalid.
    """
    columns = {name: np.array([getattr(view, name) for _, view in views]) for name in View._fields[:-1]}
    return {
        "video": torch.stack([view.video for _, view in views]) if views else torch.empty(0, dtype=torch.uint8),
        "video_index": np.array([index for index, _ in views], np.int64),
        **columns,
        "finished": [],
        "failed": {},
    }
