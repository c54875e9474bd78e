"""Classes of a user's own videos and images: of each file as a whole and, for long videos, over time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.io.errors import DataError
from data_pipelines.preprocess import ArrayReader, open_any
from data_pipelines.read_ahead import read_ahead
from data_pipelines.transforms.normalization import to_model_input
from data_pipelines.video.reader import VideoReader
from lookupvivit.evaluation.fixed_passes import FixedPasses, views_per_pass
from lookupvivit.evaluation.prediction import Prediction
from lookupvivit.models.base import Model
from lookupvivit.models.token_settings import check_token_setting
from lookupvivit.sizes import Keep, Size, TokenSetting
from lookupvivit.weights.files import WeightsError
from lookupvivit.weights.metadata import class_names_of, is_multi_label, preprocess_of

MAX_TIMELINE_CLIPS = 100  # of a long video, unless the user sets the window; a figure cannot show more
MAX_FRAMES = 8  # kept for display
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
        logits: (K,) of each view that was computed.
        outcome: what the reader found at the end of the file; None while it is being read.
    """

    path: Path
    num_views: int = 0
    logits: list[Tensor] = field(default_factory=list)
    outcome: _Facts | DataError | OSError | None = None

    @property
    def is_complete(self) -> bool:
        return self.outcome is not None and (len(self.logits) == self.num_views or not isinstance(self.outcome, _Facts))


class Predictor:
    """Applies a trained model to files.

    Args:
        model: of `lookupvivit.load_model`, which knows its preprocessing. Classes without names are numbered.
        clips, crops: views of each video, as in the multi-view test. By default, 4 x 3 views of videos up to four clips
            long; a longer one has a timeline, because these views would cover only a part of it.
        window: seconds between the starts of the timeline's clips, for all videos. By default, a timeline consists of
            consecutive clips, or of `MAX_TIMELINE_CLIPS` evenly spaced ones.
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
        self.preprocess = preprocess_of(model)
        try:
            self.class_names = class_names_of(model)
        except WeightsError:
            num_classes: Any = model.num_classes
            self.class_names = tuple(map(str, range(num_classes)))
        self._probabilities: Callable[[Tensor], Tensor] = partial(torch.softmax, dim=-1)
        if is_multi_label(model):
            self._probabilities = torch.sigmoid
        self.model, self.device = model.eval().to(device), torch.device(device)
        self.clips, self.crops, self.window = clips or VIEWS[0], crops or VIEWS[1], window
        self.always_views = window is None and (clips, crops) != (None, None)
        self.batch_size = batch_size
        try:
            tokens = TokenSetting.of(compressed_size, keep)
            check_token_setting(model, tokens)
        except ValueError as error:
            raise WeightsError(str(error)) from None
        self.model_arguments = tokens.call

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
        passes, files = FixedPasses(self._logits, self.views_per_pass), deque[_File]()
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
        logits = torch.stack(file.logits).double()  # (V, K)
        if not logits.isfinite().all():
            raise WeightsError("logits: found NaN or infinite values; the weights are corrupt, or training diverged")
        timeline = self._probabilities(logits).numpy() if len(facts.starts) else np.empty((0, len(self.class_names)))
        return Prediction(
            path=os.fspath(file.path),
            seconds=facts.seconds,
            class_names=self.class_names,
            probabilities=timeline.mean(axis=0) if len(timeline) else self._probabilities(logits.mean(0)).numpy(),
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
        with open_any(path) as reader:
            spacing = self._spacing(reader)
            spans = []
            if spacing is not None:
                spans = self.preprocess.sampling.sliding_clips(reader.num_frames, reader.fps, **spacing)
            if spacing is None or len(spans) < 2:
                yield from self._read_views(reader)
                return
            displayed, frames = set(_evenly_spaced(len(spans)).tolist()), []
            for index, clip in enumerate(self.preprocess.clips(reader, **spacing)):
                if index in displayed:
                    frames.append(clip.video[:, clip.video.shape[1] // 2])
                yield clip.video[None]
            starts = np.array([float(span.start) for span in spans])
            ends = np.array([float(span.end) for span in spans])
            yield _Facts(float(reader.num_frames / reader.fps), starts, ends, torch.stack(frames))

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

    def _spacing(self, reader: VideoReader | ArrayReader) -> dict[str, Any] | None:
        """Arguments of `Preprocess.clips` for the timeline; None for a video that has none."""
        if self.window is not None:
            return {"seconds_between": self.window}
        seconds = reader.num_frames / reader.fps
        clip_seconds = self.preprocess.sampling.clip_seconds(reader.num_frames, reader.fps)
        if self.always_views or seconds <= self.clips * clip_seconds:
            return None
        if seconds > MAX_TIMELINE_CLIPS * clip_seconds:
            return {"num_clips": MAX_TIMELINE_CLIPS}
        return {"seconds_between": clip_seconds}

    # ------------------------------------------------------------------------------------------------------------------
    # Computing

    @cached_property
    def views_per_pass(self) -> int:
        """The number of views in every forward pass."""
        side = self.preprocess.crop
        clip_size = (self.preprocess.sampling.frames, side, side)
        return views_per_pass(self._logits, clip_size, self.model.tubelet, self.batch_size, self.device)

    @torch.inference_mode()
    def _logits(self, views: Tensor) -> Tensor:
        """uint8 (V, 3, T, crop, crop) -> float32 (V, K) on the CPU."""
        try:
            return self.model(to_model_input(views, self.device), **self.model_arguments).logits.float().cpu()
        except ValueError as error:
            raise WeightsError(f"the model does not accept its input: {error}") from None


def _evenly_spaced(count: int) -> np.ndarray:
    """At most `MAX_FRAMES` indices below ``count``, evenly spaced."""
    return np.unique(((np.arange(MAX_FRAMES) + 0.5) * count / MAX_FRAMES).astype(int))
