"""What a trained model sees in anybody's videos: class probabilities of the whole, and from beginning to end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_pipelines.preprocess import ArrayReader, Preprocess, open_any
from data_pipelines.transforms.normalization import to_model_input
from data_pipelines.video.reader import VideoReader
from lookupvivit.models.base import Size, as_size
from lookupvivit.models.lookupvit import check_compressed_size
from lookupvivit.weights.files import WeightsError

TIMELINE_CLIPS = 100  # of a long video, unless a distance is asked for; a picture shows no more
SHOWN_FRAMES = 8


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
        path: the video.
        seconds: how long it lasts.
        class_names: K names.
        probabilities: (K,) of the whole video: softmax of the mean logits of all views.
        starts, ends: (W,) seconds of the clips of the timeline; W is 0 of a short video.
        timeline: (W, K) probabilities of each of them.
        frames: uint8 (N, crop, crop, 3), evenly spread over the timeline, or over the views, as the model saw them.
    """

    path: str
    seconds: float
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    timeline: np.ndarray
    frames: np.ndarray

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes of the whole video; of equals, the lower class id comes first."""
        return self._named(self.probabilities, count)

    @property
    def over_time(self) -> np.ndarray:
        """Mean probabilities (K,) of the timeline, or of a short video's views; of a film, few views miss the most."""
        return self.timeline.mean(axis=0) if len(self.starts) else self.probabilities

    def leading(self, count: int) -> np.ndarray:
        """Class ids (count,) worth a look over time: the most probable on the mean of the timeline."""
        return np.argsort(-self.over_time, kind="stable")[:count]

    def scenes(self) -> list[tuple[float, float, str, float]]:
        """Neighbouring clips of the same most probable class as one: start, end, class and its mean probability."""
        scenes, best = [], self.timeline.argmax(axis=1)
        for label, group in groupby(range(len(best)), key=lambda clip: best[clip]):
            clips = list(group)
            mean = float(self.timeline[clips, label].mean())
            end = min(self.ends[clips[-1]], *self.starts[clips[-1] + 1 :][:1], np.inf)  # the last clip may begin early
            scenes.append((float(self.starts[clips[0]]), float(end), self.class_names[label], mean))
        return scenes

    def as_json(self, count: int) -> dict[str, Any]:
        """For a JSON file, with the ``count`` most probable classes."""
        told = {"path": self.path, "seconds": round(self.seconds, 3), "top": _as_json(self.top(count))}
        if len(self.starts):
            told["top_over_time"] = _as_json(self._named(self.over_time, count))
            told["timeline"] = [
                {"start": round(start, 3), "end": round(end, 3), "top": _as_json(self._named(probabilities, count))}
                for start, end, probabilities in zip(
                    self.starts.tolist(), self.ends.tolist(), self.timeline, strict=True
                )
            ]
        return told

    def _named(self, probabilities: np.ndarray, count: int) -> list[tuple[str, float]]:
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.class_names[label], float(probabilities[label])) for label in best]


class Predictor:
    """A trained model, ready for files.

    Args:
        model: of `lookupvivit.load_model`, which knows its preprocessing; its classes have numbers where they have no
            names.
        clips, crops: views of the whole video, as in the multi-view test.
        window: seconds from one clip of the timeline to the next; by default only a video longer than two clips has a
            timeline, of one clip after the other, or of `TIMELINE_CLIPS` evenly spaced ones.
        compressed_size: (t, h, w) compressed tokens, the model's own by default.
        batch: most clips in one forward pass.

    Raises:
        WeightsError: a model that does not know its preprocessing, or cannot compute with that compressed size.
    """

    def __init__(
        self,
        model: nn.Module,
        clips: int = 4,
        crops: int = 3,
        window: float | None = None,
        compressed_size: Size | None = None,
        batch: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        try:
            self.preprocess: Preprocess = model.preprocess
        except AttributeError as error:
            raise WeightsError(str(error)) from None
        self.class_names: tuple[str, ...] = getattr(model, "class_names", tuple(map(str, range(model.num_classes))))
        self.model, self.device = model.eval().to(device), torch.device(device)
        self.clips, self.crops, self.window, self.batch = clips, crops, window, batch
        self.arguments: dict[str, Any] = {}
        if compressed_size is not None:
            self.arguments["compressed_size"] = as_size(compressed_size)
            try:
                check_compressed_size(model, as_size(compressed_size))
            except ValueError as error:
                raise WeightsError(str(error)) from None

    def __call__(self, path: str | os.PathLike[str]) -> Prediction:
        """Look at one video, picture or folder of pictures.

        Raises:
            MissingDataError, VideoDecodeError: it cannot be read; names it.
        """
        with open_any(path) as reader:
            length, fps, sampling = reader.num_frames, reader.fps, self.preprocess.sampling
            indices = sampling.test_clips(length, fps, self.clips)
            clips = 1 if (indices == indices[0]).all() else self.clips  # of a short video all are the same
            views = self.preprocess.views(reader, clips, self.crops)  # (V, 3, T, crop, crop)
            whole = self._logits(views).double().mean(0).softmax(0).numpy()
            starts, ends, rows, frames = self._timeline(reader)
        if not len(starts):
            central = views[self.crops // 2 :: self.crops].transpose(1, 2).flatten(0, 1)  # (clips * T, 3, crop, crop)
            _, first = np.unique(indices[:clips], return_index=True)  # in order of time
            frames = central[first[_evenly(len(first))]]
        frames = frames.permute(0, 2, 3, 1).numpy()
        return Prediction(os.fspath(path), float(length / fps), self.class_names, whole, starts, ends, rows, frames)

    def _timeline(self, reader: VideoReader | ArrayReader) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
        """Starts (W,), ends (W,) and probabilities (W, K) of the clips, and frames (N, 3, crop, crop) of some."""
        spacing = self._spacing(reader)
        found = self.preprocess.sampling.sliding_clips(reader.num_frames, reader.fps, **spacing) if spacing else []
        if len(found) < 2:
            return np.empty(0), np.empty(0), np.empty((0, len(self.class_names))), torch.empty(0)
        shown, frames, rows, waiting = set(_evenly(len(found)).tolist()), [], [], []
        for number, clip in enumerate(self.preprocess.clips(reader, **spacing), start=1):
            if number - 1 in shown:
                frames.append(clip.video[:, clip.video.shape[1] // 2])
            waiting.append(clip.video)
            if len(waiting) == self.batch or number == len(found):
                rows.append(self._logits(torch.stack(waiting)).double().softmax(1))
                waiting = []
        starts, ends = (np.array([float(clip[i]) for clip in found]) for i in (0, 1))
        return starts, ends, torch.cat(rows).numpy(), torch.stack(frames)

    def _spacing(self, reader: VideoReader | ArrayReader) -> dict[str, Any] | None:
        """How the clips of the timeline are spaced, for `Preprocess.clips`; None where the video needs no timeline."""
        seconds = reader.num_frames / reader.fps
        clip = self.preprocess.sampling.clip_seconds(reader.num_frames, reader.fps)
        if self.window is not None:
            return {"seconds_between": self.window}
        if seconds <= 2 * clip:
            return None
        return {"num_clips": TIMELINE_CLIPS} if seconds > TIMELINE_CLIPS * clip else {"seconds_between": clip}

    @torch.inference_mode()
    def _logits(self, views: Tensor) -> Tensor:
        """uint8 (V, 3, T, crop, crop) -> float32 (V, K) on the CPU."""
        try:
            chunks = [
                self.model(to_model_input(chunk, self.device), **self.arguments).logits.float().cpu()
                for chunk in views.split(self.batch)
            ]
        except ValueError as error:
            raise WeightsError(f"the model cannot compute with what was asked for: {error}") from None
        logits = torch.cat(chunks)
        if not logits.isfinite().all():
            raise WeightsError("the model gives logits that are no finite numbers; its weights are damaged or diverged")
        return logits


def _evenly(count: int) -> np.ndarray:
    """At most `SHOWN_FRAMES` places out of ``count``, evenly spread."""
    return np.unique(((np.arange(SHOWN_FRAMES) + 0.5) * count / SHOWN_FRAMES).astype(int))


def _as_json(top: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "probability": round(probability, 6)} for name, probability in top]
