"""Classes of a user's own videos and images: of each file as a whole and, for long videos, over time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.io.listing import is_image
from data_pipelines.preprocess import ArrayReader, exact_seconds, open_any
from data_pipelines.read_ahead import read_ahead
from data_pipelines.streaming import stream_clips
from data_pipelines.video.reader import VideoReader
from data_pipelines.video.sequential import open_sequence
from lookupvivit.evaluation.clip_classifier import ClipClassifier, require_finite
from lookupvivit.evaluation.fixed_passes import FixedPasses, LogitRows, views_per_pass
from lookupvivit.evaluation.prediction import Prediction
from lookupvivit.models.base import Model
from lookupvivit.sizes import Keep, Size

LONG_SECONDS = 60.0  # by its own statement: such a video is read once, from start to end, if all of it is needed
MAX_FRAMES = 8  # for display
MAX_KEPT = 8 * MAX_FRAMES  # of which these are chosen
VIEWS = (4, 3)  # clips and crops of a video without a timeline
PARTS_AHEAD = 8  # of a file, that are read before they are needed: clips of a timeline

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class _Facts:
    """What is known about a file when it has been read; see `Prediction`."""

    seconds: float
    starts: np.ndarray
    ends: np.ndarray
    frames: Tensor


@dataclass
class _File:
    """A file whose views wait for their logits.

    Attributes:
        path: of the file.
        num_views: the number of views that were read.
        logits: of each view that was computed.
        outcome: what the reader found at the end of the file; None while it is being read.
    """

    path: Path
    num_views: int = 0
    logits: LogitRows = field(default_factory=LogitRows)
    outcome: _Facts | DataError | OSError | None = None

    @property
    def is_complete(self) -> bool:
        return self.outcome is not None and (len(self.logits) == self.num_views or not isinstance(self.outcome, _Facts))


class Predictor(ClipClassifier):
    """Applies a trained model to files.

    Args:
        model: of `lookupvivit.load_model`, which knows its preprocessing. Classes without names are numbered.
        clips, crops: views of each video, as in the multi-view test. By default, 4 x 3 views of videos up to four clips
            long; a longer one has a timeline, because these views would cover only a part of it.
        window: seconds between the starts of the timeline's clips, for all videos. By default, a timeline consists of
            consecutive clips, which cover the whole video.
        compressed_size: (t, h, w); default: the model's own.
        keep: share of the lookup tokens to keep, such as 0.5 or "motion:0.5"; default: all.
        batch_size: maximal number of clips in one forward pass.
        device: where the model computes.

    Raises:
        WeightsError: the preprocessing is unknown, or the model does not support the compressed size or ``keep``.
    """

    def __init__(
        self,
        model: Model,
        clips: int | None = None,
        crops: int | None = None,
        window: float | None = None,
        compressed_size: Size | None = None,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
        keep: float | str | Keep | None = None,
    ) -> None:
        super().__init__(model, compressed_size, device, keep)
        self.clips, self.crops, self.window = clips or VIEWS[0], crops or VIEWS[1], window
        self.always_views = window is None and (clips, crops) != (None, None)
        self.batch_size = batch_size

    def __call__(self, path: Path) -> Prediction:
        """Predict the classes of one video, image or folder of images.

        Raises:
            MissingDataError, VideoDecodeError: the file cannot be read.
            WeightsError: the logits are NaN or infinite.
        """
        [prediction] = self.predict_all([path])
        if not isinstance(prediction, Prediction):
            raise prediction
        return prediction

    def predict_all(self, paths: Iterable[Path], threads: int = 0) -> Iterator[Prediction | DataError | OSError]:
        """Yield for each file, in order, its prediction or the reason why it cannot be read.

        Files share forward passes; the results are bit-identical to those of calls for one file each.

        Args:
            threads: the number of files that are read at a time, ahead of their turn, each by a decoding process.

        Raises:
            WeightsError: the logits are NaN or infinite.
        """
        passes, files = FixedPasses(self.logits, self.views_per_pass), deque[_File]()
        for path, parts in read_ahead(paths, self._read, threads, PARTS_AHEAD):
            files.append(file := _File(path))
            try:
                for part in parts:
                    if isinstance(part, _Facts):
                        file.outcome = part
                    else:
                        file.num_views += len(part)
                        passes.add(part, file.logits)
                    yield from self._completed(files)
            except (DataError, OSError) as error:
                file.outcome = error
                yield from self._completed(files)
        passes.flush()
        yield from self._completed(files)

    def _completed(self, files: deque[_File]) -> Iterator[Prediction | DataError | OSError]:
        """Remove and yield the first files as far as they are complete."""
        while files and files[0].is_complete:
            file = files.popleft()
            facts = file.outcome
            if isinstance(facts, _Facts):
                yield self._prediction(file, facts)
            elif facts is not None:
                yield facts

    def _prediction(self, file: _File, facts: _Facts) -> Prediction:
        logits = file.logits.stack().double()  # (V, K)
        require_finite(logits)
        timeline = self.probabilities(logits) if len(facts.starts) else np.empty((0, len(self.class_names)))
        return Prediction(
            path=os.fspath(file.path),
            seconds=facts.seconds,
            class_names=self.class_names,
            probabilities=timeline.mean(axis=0) if len(timeline) else self.probabilities(logits.mean(0)),
            logits=logits.mean(0).numpy(),
            num_views=file.num_views,
            starts=facts.starts,
            ends=facts.ends,
            timeline=timeline,
            frames=facts.frames.permute(0, 2, 3, 1).numpy(),
        )

    # ------------------------------------------------------------------------------------------------------------------
    # Reading, in threads

    def _read(self, path: Path) -> Iterator[Tensor | _Facts]:
        """Yield all views of a file, uint8 (V, 3, T, crop, crop), in parts; then what else is known about it."""
        if self._may_read_once(path) and (yield from self._read_once(os.fspath(path))):
            return
        with open_any(path) as reader:
            spans = []
            if self._has_timeline(reader.num_frames, reader.fps):
                spacing = self._seconds_between(reader.num_frames, reader.fps)
                spans = self.preprocess.sampling.sliding_clips(reader.num_frames, reader.fps, spacing)
            if len(spans) < 2:
                yield from self._read_views(reader)
                return
            frames = _SpacedFrames()
            for clip in self.preprocess.clips(reader, float(spacing)):
                frames.add(clip.video)
                yield clip.video[None]
            times = [(float(span.start), float(span.end)) for span in spans]
            yield _timeline_facts(reader.num_frames, reader.fps, times, frames)

    def _read_views(self, reader: VideoReader | ArrayReader) -> Iterator[Tensor | _Facts]:
        """As `_read`, for a video without a timeline."""
        indices = self.preprocess.sampling.test_clips(reader.num_frames, reader.fps, self.clips)
        clips = 1 if (indices == indices[0]).all() else self.clips  # the clips of a short video are all the same
        views = self.preprocess.views(reader, clips, self.crops)
        yield views
        centre = views[self.crops // 2 :: self.crops].transpose(1, 2).flatten(0, 1)  # (clips * T, 3, crop, crop)
        _, in_order = np.unique(indices[:clips], return_index=True)
        frames = centre[in_order[_evenly_spaced(len(in_order))]]
        yield _Facts(float(reader.num_frames / reader.fps), np.empty(0), np.empty(0), frames)

    def _read_once(self, path: str) -> Generator[Tensor | _Facts, None, bool]:
        """As `_read`, from one pass over a long video; False, before anything is yielded, if it has no timeline."""
        with ExitStack() as stack:
            try:
                sequence = stack.enter_context(open_sequence(path))
            except VideoDecodeError:  # the reader has other decoders, and reports what each one found
                return False
            fps, num_frames = sequence.fps, 0
            if not fps or (sequence.seconds or 0) < LONG_SECONDS or self._has_gaps(fps):
                return False

            def counted() -> Iterator[np.ndarray]:
                nonlocal num_frames
                for chunk in sequence.chunks():
                    num_frames += len(chunk)
                    yield chunk

            times, frames, held = list[tuple[float, float]](), _SpacedFrames(), list[Tensor]()
            for clip in stream_clips(self.preprocess, counted(), fps, self.window):
                times.append((float(clip.start), float(clip.end)))
                held.append(clip.video())
                frames.add(held[-1])
                # The stated duration may be wrong: nothing is yielded before it is certain that there is a timeline.
                if len(times) > 1 and self._has_timeline(num_frames, fps):
                    yield torch.stack(held)
                    held = []
            if held:
                return False
            yield _timeline_facts(num_frames, fps, times, frames)
            return True

    def _may_read_once(self, path: Path) -> bool:
        """Whether the file is a video that may have a timeline of clips."""
        is_video = os.path.isfile(path) and not is_image(os.fspath(path))
        return is_video and not self.always_views and not self.preprocess.sampling.segments

    def _has_gaps(self, fps: Fraction) -> bool:
        """Whether frames between the timeline's clips are not needed; a reader that seeks is faster then."""
        return self.window is not None and exact_seconds(self.window) * fps > self.preprocess.sampling.clip_periods(fps)

    def _has_timeline(self, num_frames: int, fps: Fraction) -> bool:
        """Whether a video of this length has a timeline, if that has at least two clips."""
        if self.window is not None:
            return True
        clip_seconds = self.preprocess.sampling.clip_seconds(num_frames, fps)
        return not self.always_views and num_frames / fps > self.clips * clip_seconds

    def _seconds_between(self, num_frames: int, fps: Fraction) -> Fraction:
        """The time between the starts of two clips of the timeline."""
        if self.window is not None:
            return exact_seconds(self.window)
        return self.preprocess.sampling.clip_seconds(num_frames, fps)

    # ------------------------------------------------------------------------------------------------------------------
    # Computing

    @cached_property
    def views_per_pass(self) -> int:
        """The number of views in every forward pass."""
        side = self.preprocess.crop
        clip_size = (self.preprocess.sampling.frames, side, side)
        return views_per_pass(self.logits, clip_size, self.model.tubelet, self.batch_size, self.device)


class _SpacedFrames:
    """Frames for display: the central ones of evenly spaced clips, from an unknown number of clips."""

    def __init__(self) -> None:
        self._count, self._every, self._kept = 0, 1, dict[int, Tensor]()

    def add(self, clip: Tensor) -> None:
        """Keep the central frame of the next clip, (3, T, crop, crop), or not."""
        if self._count % self._every == 0:
            self._kept[self._count] = clip[:, clip.shape[1] // 2].clone()
        self._count += 1
        if len(self._kept) > MAX_KEPT:
            self._every *= 2
            self._kept = {index: frame for index, frame in self._kept.items() if index % self._every == 0}

    def chosen(self) -> Tensor:
        """At most `MAX_FRAMES`, uint8 (N, 3, crop, crop)."""
        wanted = _evenly_spaced(self._count)
        return torch.stack([self._kept[index] for index in (wanted // self._every * self._every).tolist()])


def _timeline_facts(num_frames: int, fps: Fraction, times: list[tuple[float, float]], frames: _SpacedFrames) -> _Facts:
    starts, ends = np.array(times).T
    return _Facts(float(num_frames / fps), starts, ends, frames.chosen())


def _evenly_spaced(count: int) -> np.ndarray:
    """At most `MAX_FRAMES` indices below ``count``, evenly spaced."""
    return np.unique(((np.arange(MAX_FRAMES) + 0.5) * count / MAX_FRAMES).astype(int))
