"""Predictions of a multi-view test, stored per view, so that tests with fewer views are scored without a second run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.datasets.manifest import CENTRE_CLIP
from data_pipelines.io.listing import unit_of
from data_pipelines.io.npz_files import READ_ERRORS
from lookupvivit.evaluation.array_files import PredictionsError, load_arrays, save_arrays
from lookupvivit.evaluation.metrics import (
    confusion_matrix,
    mean_class_accuracy,
    reported_ranks,
    top_k_correct,
    wilson_interval,
)
from lookupvivit.evaluation.multi_label import multi_label_scores

AVERAGES = ("logits", "softmax")
BOTH = "both"  # the mean over all classifiers
NAMES_IN_FILES = {"logits": "head_logits", "classifiers": "heads"}  # those of version 0.1; other fields keep their name


@dataclass(frozen=True, eq=False)
class Predictions:
    """Raw logits of every view of every video, from every classifier.

    The V views of a video are all pairs of a clip and a crop, each once, in any order. Clips are numbered along time,
    crops along the longer side (left, centre, right or top, centre, bottom). With an even number of clips there may be
    one additional view: that of a 1x1 test, the central crop of the central window. Its clip index is -1.

    Attributes:
        video_names: (N,) str, unique.
        labels: (N,) int64 in [0, K); or, where videos may have several classes, (N, K) bool.
        logits: (N, V, S, K) float32.
        classifiers: S names, such as "compressed" and "lookup", or "logits" for a model with one classifier.
        clip_index: (V,) int64, the clip of each view.
        aug_index: (V,) int64, the crop of each view.
        frame_indices: (N, V, T) int64, the frames of the video that the view shows.
        boxes: (N, V, 3) int64, top, left and side of the square crop, in pixels of the resized frame.
        class_names: K names.
        facts: about the test, JSON values: ``checkpoint``, ``broken_videos`` (reason by name), ``missing_videos``, ...

    Raises:
        PredictionsError: shapes or contents contradict this description.
    """

    video_names: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    classifiers: tuple[str, ...]
    clip_index: np.ndarray
    aug_index: np.ndarray
    frame_indices: np.ndarray
    boxes: np.ndarray
    class_names: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------------------------
    # Validation

    def __post_init__(self) -> None:
        kind = np.bool_ if self.is_multi_label else np.int64
        dtypes: dict[str, Any] = {"video_names": np.str_, "labels": kind, "logits": np.float32}
        dtypes |= dict.fromkeys(("clip_index", "aug_index", "frame_indices", "boxes"), np.int64)
        for name, dtype in dtypes.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        for name in ("class_names", "classifiers"):
            object.__setattr__(self, name, tuple(str(entry) for entry in getattr(self, name)))
        self._check_shapes()
        self._check_videos()
        self._check_views()

    def _check_shapes(self) -> None:
        if self.logits.ndim != 4:
            raise PredictionsError(f"logits: found shape {self.logits.shape}, expected (N, V, S, K)")
        num_videos, num_views, num_classifiers, num_classes = self.logits.shape
        num_frames = self.frame_indices.shape[-1]
        expected_shapes = {
            "video_names": (num_videos,),
            "labels": (num_videos, num_classes) if self.is_multi_label else (num_videos,),
            "clip_index": (num_views,),
            "aug_index": (num_views,),
            "frame_indices": (num_videos, num_views, num_frames),
            "boxes": (num_videos, num_views, 3),
        }
        for name, expected in expected_shapes.items():
            shape = getattr(self, name).shape
            if shape != expected:
                raise PredictionsError(f"{name}: found shape {shape}, expected {expected}")
        if len(self.classifiers) != num_classifiers or not num_classifiers:
            raise PredictionsError(f"classifiers: found {len(self.classifiers)} names, logits of {num_classifiers}")
        if len(self.class_names) != num_classes:
            raise PredictionsError(f"class_names: found {len(self.class_names)} names, logits of {num_classes} classes")

    def _check_videos(self) -> None:
        num_classes = len(self.class_names)
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= num_classes))
        if outside.size and not self.is_multi_label:
            name, label = self.video_names[outside[0]], self.labels[outside[0]]
            raise PredictionsError(f"labels: found {label} for video '{name}', expected 0 to {num_classes - 1}")
        names, counts = np.unique(self.video_names, return_counts=True)
        if (counts > 1).any():
            raise PredictionsError(f"video_names: found '{names[counts > 1][0]}' more than once")

    def _check_views(self) -> None:
        regular = self.clip_index >= 0
        views = sorted(zip(self.clip_index[regular].tolist(), self.aug_index[regular].tolist(), strict=True))
        if not views or views != [(clip, crop) for clip in self.clips for crop in self.crops]:
            raise PredictionsError(f"views: found (clip, crop) {views}, expected every clip with every crop once")
        additional = self.aug_index[~regular].tolist()
        if additional not in ([], _middle(self.crops)) or (self.clip_index < CENTRE_CLIP).any():
            raise PredictionsError(f"views: found crops {additional} without a clip, expected at most the central crop")

    # ------------------------------------------------------------------------------------------------------------------
    # Views and their logits

    @property
    def is_multi_label(self) -> bool:
        """Whether a video may have any number of classes, instead of exactly one."""
        return np.ndim(self.labels) == 2

    @property
    def clips(self) -> list[int]:
        """The clip indices, in order of time, without that of the additional centre view."""
        return np.unique(self.clip_index[self.clip_index >= 0]).tolist()

    @property
    def crops(self) -> list[int]:
        """The crop indices."""
        return np.unique(self.aug_index[self.clip_index >= 0]).tolist()

    @property
    def view_logits(self) -> np.ndarray:
        """Logits of every view, float32 (N, V, K): the mean over the classifiers, as the model's ``logits``."""
        return self.logits_of(BOTH)

    def logits_of(self, classifier: str) -> np.ndarray:
        """Logits of every view from one classifier, or their mean for "both": float32 (N, V, K).

        Raises:
            PredictionsError: the classifier does not exist.
        """
        if classifier == BOTH:
            return self.logits.mean(axis=2)
        if classifier not in self.classifiers:
            expected = ", ".join((BOTH, *self.classifiers))
            raise PredictionsError(f"classifier: found '{classifier}', expected one of {expected}")
        return self.logits[:, :, self.classifiers.index(classifier)]

    def video_logits(
        self, views: Sequence[int] | np.ndarray | None = None, classifier: str = BOTH, average: str = "logits"
    ) -> np.ndarray:
        """The mean over views of a classifier's raw logits, or of its probabilities: float32 (N, K).

        Args:
            views: indices of views, such as those of `view_subsets`; default: all, without the additional centre view.
            classifier: one of `classifiers`, or "both" for the mean of their logits.
            average: "logits", or "softmax" for probabilities.

        Raises:
            PredictionsError: the classifier or average does not exist, or there are no views.
        """
        views = np.flatnonzero(self.clip_index >= 0) if views is None else np.asarray(views, np.int64)
        if not len(views):
            raise PredictionsError("views: found none, expected at least one")
        if average not in AVERAGES:
            raise PredictionsError(f"average: found '{average}', expected one of {', '.join(AVERAGES)}")
        logits = self.logits_of(classifier)[:, views].astype(np.float64)
        if average == "softmax":
            logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
            logits /= logits.sum(axis=-1, keepdims=True)
        return logits.mean(axis=1).astype(np.float32)

    def view_subsets(self) -> dict[str, np.ndarray]:
        """The tests that these views contain: name "<clips>x<crops>", such as "4x3" -> indices of views.

        Each subset has exactly the views of a test with that many clips and crops. One crop is the central one. Fewer
        clips are those whose frames the shorter test would read: the first and the last of 4 clips are those of a test
        with 2 clips, but no three of them are those of a test with 3. One clip is the central window, which an even
        number of clips does not contain; the additional centre view takes its place.
        """
        segments = self.facts.get("sampling") == "segments"
        subsets = {}
        if (self.clip_index == CENTRE_CLIP).any():
            subsets["1x1"] = np.flatnonzero(self.clip_index == CENTRE_CLIP)
        central_crop = _middle(self.crops) if len(self.crops) > 1 else []
        for count in range(1, len(self.clips) + 1):
            positions = clips_of_shorter_test(len(self.clips), count, segments)
            if positions is None:
                continue
            clips = [self.clips[position] for position in positions]
            for crops in filter(None, (central_crop, self.crops)):
                selected = np.isin(self.clip_index, clips) & np.isin(self.aug_index, crops)
                subsets[f"{count}x{len(crops)}"] = np.flatnonzero(selected)
        return subsets

    @property
    def unit(self) -> str:
        """What was tested, "image" or "video", for messages."""
        return unit_of(str(self.video_names[0]))

    # ------------------------------------------------------------------------------------------------------------------
    # Scores

    def summary(self, classifier: str = BOTH, average: str = "logits") -> dict[str, Any]:
        """Exact scores of all view subsets; ``classifier`` and ``average`` as in `video_logits`.

        Returns:
            ``videos`` and ``classes`` (their numbers), and ``views``: name of a subset -> ``top1_correct`` and
            ``top5_correct`` (videos), ``top1`` and ``top5`` (per cent of all videos, not rounded), ``top1_interval``
            (95 %, Wilson) and ``mean_class_top1``. Up to five classes have no top-5 scores. Ties are ranked by class
            index, see `metrics.top_k_correct`. Where videos may have several classes, the scores are those of
            `multi_label.multi_label_scores`.

        Raises:
            PredictionsError: there are no videos, or a logit is NaN.
        """
        num_videos = len(self.labels)
        if not num_videos:
            raise PredictionsError("videos: found none, expected at least one to score")
        if (with_nan := np.isnan(self.logits).any(axis=(1, 2, 3))).any():
            first = self.video_names[with_nan.argmax()]
            raise PredictionsError(
                f"logits: found NaN for {with_nan.sum()} of {num_videos} {self.unit}s, first for '{first}'"
            )
        scores = {
            name: self._scores(self.video_logits(views, classifier, average))
            for name, views in self.view_subsets().items()
        }
        return {"videos": num_videos, "classes": len(self.class_names), "views": scores}

    def _scores(self, logits: np.ndarray) -> dict[str, Any]:
        """The scores of logits (N, K)."""
        if self.is_multi_label:
            try:
                return multi_label_scores(logits, self.labels)
            except ValueError as error:
                raise PredictionsError(str(error)) from None
        num_videos = len(self.labels)
        scores: dict[str, Any] = {}
        for k in reported_ranks(len(self.class_names)):
            correct = int(top_k_correct(logits, self.labels, k).sum())
            scores |= {f"top{k}_correct": correct, f"top{k}": 100 * correct / num_videos}
        low, high = wilson_interval(scores["top1_correct"], num_videos)
        matrix = confusion_matrix(self.labels, logits.argmax(axis=1), len(self.class_names))
        mean_class_top1 = 100 * mean_class_accuracy(matrix)
        return scores | {"top1_interval": [100 * low, 100 * high], "mean_class_top1": mean_class_top1}

    # ------------------------------------------------------------------------------------------------------------------
    # Files

    def save(self, path: str | Path) -> None:
        """Write one compressed .npz without pickles, atomically.

        Every attribute is an array; ``facts`` is a string of JSON. Names differ where `NAMES_IN_FILES` says so.
        """
        arrays = {_name_in_file(entry.name): np.asarray(getattr(self, entry.name)) for entry in fields(self)}
        save_arrays(path, {**arrays, "facts": np.array(json.dumps(self.facts))})

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: the file does not exist.
            PredictionsError: the file is corrupt or has other content.
        """
        arrays = load_arrays(path, [_name_in_file(entry.name) for entry in fields(cls)])
        try:
            facts = dict(json.loads(str(arrays["facts"])))
            contents: dict[str, Any] = {entry.name: arrays[_name_in_file(entry.name)] for entry in fields(cls)}
            return cls(**{**contents, "facts": facts})
        except READ_ERRORS as error:
            raise PredictionsError(f"{path}: found no readable predictions ({error})") from error


def clips_of_shorter_test(total: int, count: int, segments: bool = False) -> list[int] | None:
    """Which of ``total`` test clips a test with ``count`` clips would read; None if they do not contain these.

    Clip i of n starts at the fraction i / (n - 1) of the way, a single clip at one half
    (`data_pipelines.sampling.uniform_starts`). With segments, clip i reads each segment at the fraction (i + 1/2) / n
    (`data_pipelines.sampling.uniform_segments`).
    """
    if segments:
        step, remainder = divmod(total, count)
        return None if remainder or step % 2 == 0 else [index * step + step // 2 for index in range(count)]
    if count == 1:
        return [total // 2] if total % 2 else None
    step, remainder = divmod(total - 1, count - 1)
    return None if remainder else [index * step for index in range(count)]


def _name_in_file(name: str) -> str:
    return NAMES_IN_FILES.get(name, name)


def _middle(indices: list[int]) -> list[int]:
    """The middle index, in a list; empty for an even number of indices."""
    return [indices[len(indices) // 2]] if len(indices) % 2 else []
