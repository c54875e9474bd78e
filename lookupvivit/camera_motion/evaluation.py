"""Accuracy and confusions of camera motion models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.io.progress import progress
from data_pipelines.preprocess import Preprocess, open_any
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.camera_motion.classes import CLASS_NAMES, class_ids
from lookupvivit.camera_motion.video_sets import LabelledVideo, VideoSet
from lookupvivit.evaluation.metrics import class_scores, confusion_matrix, wilson_interval
from lookupvivit.models.base import Model
from lookupvivit.sizes import Size, format_size
from lookupvivit.weights.metadata import class_names_of, preprocess_of

CLIPS_PER_DURATION = 2  # clips of a labelled part start half a clip apart


@dataclass(frozen=True)
class Result:
    """A model's answers for one set of videos.

    Attributes:
        run: the model.
        videos: the set.
        compressed_size: TxHxW, or None for the model's own.
        predictions: index in `CLASS_NAMES` per video.
    """

    run: str
    videos: VideoSet
    compressed_size: Size | None
    predictions: tuple[int, ...]

    @property
    def matrix(self) -> np.ndarray:
        """Counts (10, 10): row = true class, column = predicted class."""
        labels = np.array([video.label for video in self.videos.videos])
        return confusion_matrix(labels, np.array(self.predictions), len(CLASS_NAMES))

    def to_dict(self) -> dict[str, Any]:
        """The entry in the results file; accuracies are in per cent."""
        matrix = self.matrix
        correct, total = int(matrix.trace()), int(matrix.sum())
        return {
            "set": self.videos.name,
            "title": self.videos.title,
            "model": self.run,
            "compressed_size": self.compressed_size and format_size(self.compressed_size),
            "videos": total,
            "top1": 100 * correct / total,
            "top1_interval": [100 * bound for bound in wilson_interval(correct, total)],
            **class_scores(matrix, CLASS_NAMES),
        }


def evaluate(
    model: Model, run: str, videos: VideoSet, sizes: Sequence[Size | None], views: tuple[int, int], device: torch.device
) -> list[Result]:
    """Classify all videos of a set at several compressed sizes, from one decode.

    Args:
        model: from `lookupvivit.load_model`, on ``device``.
        run: its name.
        views: clips and crops per video, of which the logits are averaged. A labelled part of a video has as many clips
            as fit, half a clip apart.

    Raises:
        UserError: the model has other classes.
        DataError: a video cannot be read.
    """
    ids = class_ids(class_names_of(model), run)
    preprocess = preprocess_of(model)
    answers: list[list[int]] = [[] for _ in sizes]
    for views_of_video in progress(
        read_views(preprocess, videos.videos, views),
        desc=f"{run}: {videos.name}",
        total=len(videos.videos),
        unit="video",
    ):
        clips = to_model_input(views_of_video, device)
        for size, predictions in zip(sizes, answers, strict=True):
            logits = _logits(model, clips, size)
            predictions.append(ids[int(logits.argmax())])
    return [Result(run, videos, size, tuple(predictions)) for size, predictions in zip(sizes, answers, strict=True)]


@torch.inference_mode()
def _logits(model: Model, clips: Tensor, size: Size | None) -> Tensor:
    call = {"compressed_size": size} if size else {}
    return model(clips, **call).logits.double().mean(0)


def read_views(preprocess: Preprocess, videos: Sequence[LabelledVideo], views: tuple[int, int]) -> Iterator[Tensor]:
    """The views of each video, uint8 (V, 3, T, crop, crop); those of a part of a video are `clips_between`."""
    clips, crops = views
    for video in videos:
        with open_any(video.path) as reader:
            if video.span is None:
                indices = preprocess.sampling.test_clips(reader.num_frames, reader.fps, clips)
            else:
                indices = clips_between(preprocess.sampling, reader.num_frames, reader.fps, *video.span)
            yield preprocess.views_of(reader, indices, crops)[0]


def clips_between(sampling: Sampling, num_frames: int, fps: Any, start: float, end: float) -> np.ndarray:
    """Frame indices, int64 (N, T), of the clips within a part of a video, or of the one that is closest to its centre.

    Args:
        num_frames, fps: of the video.
        start, end: seconds.
    """
    spacing = sampling.clip_seconds(num_frames, fps) / CLIPS_PER_DURATION
    spans = sampling.sliding_clips(num_frames, fps, spacing)
    inside = [span for span in spans if start <= span.start and span.end <= end]
    closest = min(spans, key=lambda span: abs(float(span.start + span.end) - start - end))
    return np.stack([span.indices for span in inside or [closest]])
