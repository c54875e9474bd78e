"""Classes of a user's own videos and images: of each file as a whole and, for long videos, over time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.preprocess import ArrayReader, open_any
from data_pipelines.transforms.normalization import to_model_input
from data_pipelines.video.reader import VideoReader
from lookupvivit.models.base import Model
from lookupvivit.models.lookupvit import check_compressed_size
from lookupvivit.sizes import Size, as_size
from lookupvivit.weights.files import WeightsError
from lookupvivit.weights.metadata import class_names_of, preprocess_of

MAX_TIMELINE_CLIPS = 100  # of a long video, unless the user sets the window; a figure cannot show more
MAX_FRAMES = 8  # kept for display


class Scene(NamedTuple):
    """Consecutive clips with the same most probable class.

    Attributes:
        start, end: seconds.
        class_name: the class.
        probability: its mean probability over the clips.
    """

    start: float
    end: float
    class_name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The classes of one video.

    Attributes:
        path: of the file.
        seconds: duration of the video.
        class_names: K names.
        probabilities: (K,) of the whole video: softmax of the mean logits of all views.
        starts, ends: (W,) seconds of the timeline's clips; W is 0 for a short video.
        timeline: (W, K) probabilities of each of these clips.
        frames: uint8 (N, crop, crop, 3) as the model saw them, evenly spaced over the timeline or over the views.
    """

    path: str
    seconds: float
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    timeline: np.ndarray
    frames: np.ndarray

    @property
    def has_timeline(self) -> bool:
        return len(self.starts) > 0

    @property
    def mean_over_time(self) -> np.ndarray:
        """Mean probabilities (K,) of the timeline, or `probabilities` for a short video.

        It covers a long video completely, of which a few views show only a fraction.
        """
        return self.timeline.mean(axis=0) if self.has_timeline else self.probabilities

    def top(self, count: int) -> list[tuple[str, float]]:
        """Names and probabilities of the most probable classes of the whole video."""
        return [(self.class_names[k], float(self.probabilities[k])) for k in top_classes(self.probabilities, count)]

    def scenes(self) -> list[Scene]:
        """The timeline, with consecutive clips of the same most probable class merged."""
        scenes = []
        labels = self.timeline.argmax(axis=1)
        for label, group in groupby(range(len(labels)), key=lambda clip: labels[clip]):
            clips = list(group)
            end = self.ends[clips[-1]]
            if clips[-1] + 1 < len(labels):  # the last clip of the video may overlap with the one before it
                end = min(end, self.starts[clips[-1] + 1])
            probability = float(self.timeline[clips, label].mean())
            scenes.append(Scene(float(self.starts[clips[0]]), float(end), self.class_names[label], probability))
        return scenes


def top_classes(probabilities: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` most probable classes, most probable first; of equals, the lower index comes first."""
    return np.argsort(-probabilities, kind="stable")[:count]


class Predictor:
    """Applies a trained model to files.

    Args:
        model: of `lookupvivit.load_model`, which knows its preprocessing. Classes without names are numbered.
        clips, crops: views of the whole video, as in the multi-view test.
        window: seconds between the starts of the timeline's clips. By default, only a video longer than two clips has a
            timeline: consecutive clips, or `MAX_TIMELINE_CLIPS` evenly spaced ones.
        compressed_size: (t, h, w); default: the model's own.
        batch_size: maximal number of clips in one forward pass.
        device: where the model computes.

    Raises:
        WeightsError: the preprocessing is unknown, or the model does not support the compressed size.
    """

    def __init__(
        self,
        model: Model,
        clips: int = 4,
        crops: int = 3,
        window: float | None = None,
        compressed_size: Size | None = None,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        self.preprocess = preprocess_of(model)
        try:
            self.class_names = class_names_of(model)
        except WeightsError:
            num_classes: Any = model.num_classes
            self.class_names = tuple(map(str, range(num_classes)))
        self.model, self.device = model.eval().to(device), torch.device(device)
        self.clips, self.crops, self.window, self.batch_size = clips, crops, window, batch_size
        self.model_arguments: dict[str, Any] = {}
        if compressed_size is not None:
            size = as_size(compressed_size)
            try:
                check_compressed_size(model, size)
            except ValueError as error:
                raise WeightsError(str(error)) from None
            self.model_arguments["compressed_size"] = size

    def __call__(self, path: str | os.PathLike[str]) -> Prediction:
        """Predict the classes of one video, image or folder of images.

        Raises:
            MissingDataError, VideoDecodeError: the file cannot be read.
            WeightsError: the logits are NaN or infinite.
        """
        with open_any(path) as reader:
            sampling = self.preprocess.sampling
            indices = sampling.test_clips(reader.num_frames, reader.fps, self.clips)
            clips = 1 if (indices == indices[0]).all() else self.clips  # the clips of a short video are all the same
            views = self.preprocess.views(reader, clips, self.crops)  # (V, 3, T, crop, crop)
            probabilities = self._logits(views).double().mean(0).softmax(0).numpy()
            starts, ends, timeline, frames = self._timeline(reader)
            seconds = float(reader.num_frames / reader.fps)
        if not len(starts):
            centre = views[self.crops // 2 :: self.crops].transpose(1, 2).flatten(0, 1)  # (clips * T, 3, crop, crop)
            _, in_order = np.unique(indices[:clips], return_index=True)
            frames = centre[in_order[_evenly_spaced(len(in_order))]]
        return Prediction(
            path=os.fspath(path),
            seconds=seconds,
            class_names=self.class_names,
            probabilities=probabilities,
            starts=starts,
            ends=ends,
            timeline=timeline,
            frames=frames.permute(0, 2, 3, 1).numpy(),
        )

    def _timeline(self, reader: VideoReader | ArrayReader) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
        """Starts (W,), ends (W,) and probabilities (W, K) of clips, and frames (N, 3, crop, crop) for display."""
        spacing = self._spacing(reader)
        spans = []
        if spacing:
            spans = self.preprocess.sampling.sliding_clips(reader.num_frames, reader.fps, **spacing)
        if len(spans) < 2:
            return np.empty(0), np.empty(0), np.empty((0, len(self.class_names))), torch.empty(0)
        displayed = set(_evenly_spaced(len(spans)).tolist())
        frames, probabilities, waiting = [], [], []
        for index, clip in enumerate(self.preprocess.clips(reader, **spacing)):
            if index in displayed:
                frames.append(clip.video[:, clip.video.shape[1] // 2])
            waiting.append(clip.video)
            if len(waiting) == self.batch_size or index == len(spans) - 1:
                probabilities.append(self._logits(torch.stack(waiting)).double().softmax(1))
                waiting = []
        starts = np.array([float(span.start) for span in spans])
        ends = np.array([float(span.end) for span in spans])
        return starts, ends, torch.cat(probabilities).numpy(), torch.stack(frames)

    def _spacing(self, reader: VideoReader | ArrayReader) -> dict[str, Any]:
        """Arguments of `Preprocess.clips` for the timeline; empty where the video needs no timeline."""
        if self.window is not None:
            return {"seconds_between": self.window}
        seconds = reader.num_frames / reader.fps
        clip_seconds = self.preprocess.sampling.clip_seconds(reader.num_frames, reader.fps)
        if seconds <= 2 * clip_seconds:
            return {}
        if seconds > MAX_TIMELINE_CLIPS * clip_seconds:
            return {"num_clips": MAX_TIMELINE_CLIPS}
        return {"seconds_between": clip_seconds}

    @torch.inference_mode()
    def _logits(self, views: Tensor) -> Tensor:
        """uint8 (V, 3, T, crop, crop) -> float32 (V, K) on the CPU."""
        try:
            logits = torch.cat(
                [
                    self.model(to_model_input(chunk, self.device), **self.model_arguments).logits.float().cpu()
                    for chunk in views.split(self.batch_size)
                ]
            )
        except ValueError as error:
            raise WeightsError(f"the model does not accept its input: {error}") from None
        if not logits.isfinite().all():
            raise WeightsError("logits: found NaN or infinite values; the weights are corrupt, or training diverged")
        return logits


def _evenly_spaced(count: int) -> np.ndarray:
    """At most `MAX_FRAMES` indices below ``count``, evenly spaced."""
    return np.unique(((np.arange(MAX_FRAMES) + 0.5) * count / MAX_FRAMES).astype(int))
