"""Predictions of a multi-view test, kept per view so that fewer views can be scored without a second run."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lookupvivit.evaluation.metrics import confusion_matrix, mean_class_accuracy, top_k_correct, wilson_interval

# What np.load and a wrong or torn file raise between them; AttributeError: an array, not an archive, on Python 3.10.
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)


class PredictionsError(ValueError):
    """Predictions that are incomplete, contradictory or unreadable; one line that names what is wrong."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Raw logits of every view of every video.

    The V views of a video are all pairs of a clip (numbered along time) and a crop (left, centre, right
    or top, centre, bottom), in any order, each exactly once.

    Attributes:
        video_names: (N,) str, unique.
        labels: (N,) int64 in [0, K).
        view_logits: (N, V, K) float32.
        clip_index: (V,) int64, the clip of each view, in order of time.
        aug_index: (V,) int64, the crop of each view.
        class_names: K names.

    Raises:
        PredictionsError: shapes or contents contradict the above.
    """

    video_names: np.ndarray
    labels: np.ndarray
    view_logits: np.ndarray
    clip_index: np.ndarray
    aug_index: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        kinds = {"video_names": np.str_, "labels": np.int64, "view_logits": np.float32}
        kinds |= {"clip_index": np.int64, "aug_index": np.int64}
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        object.__setattr__(self, "class_names", tuple(str(name) for name in self.class_names))
        self._check()

    def _check(self) -> None:
        if self.view_logits.ndim != 3:
            raise PredictionsError(f"view_logits must be (N, V, K), found shape {self.view_logits.shape}")
        videos, views, classes = self.view_logits.shape
        expected = {"video_names": videos, "labels": videos, "clip_index": views, "aug_index": views}
        for name, length in expected.items():
            shape = getattr(self, name).shape
            if shape != (length,):
                raise PredictionsError(f"{name} must have shape ({length},), found {shape}")
        if len(self.class_names) != classes:
            raise PredictionsError(f"logits of {classes} classes but {len(self.class_names)} class names")
        outside = (self.labels < 0) | (self.labels >= classes)
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            name, label = self.video_names[first], self.labels[first]
            raise PredictionsError(f"label of video '{name}' must lie in [0, {classes}), found {label}")
        names, counts = np.unique(self.video_names, return_counts=True)
        if (counts > 1).any():
            raise PredictionsError(f"video '{names[counts > 1][0]}' occurs more than once")
        found = sorted(zip(self.clip_index.tolist(), self.aug_index.tolist(), strict=True))
        if not found or found != [(clip, crop) for clip in self.clips for crop in self.crops]:
            raise PredictionsError(f"views must be every clip with every crop once, found {found}")

    @property
    def clips(self) -> list[int]:
        """Clip indices that occur, in order of time."""
        return np.unique(self.clip_index).tolist()

    @property
    def crops(self) -> list[int]:
        """Crop indices that occur."""
        return np.unique(self.aug_index).tolist()

    def video_logits(
        self, clips: Sequence[int] | None = None, crops: Sequence[int] | None = None
    ) -> np.ndarray:
        """Mean of the raw logits over the chosen views, float32 (N, K).

        Args:
            clips, crops: indices to keep, all by default.

        Raises:
            PredictionsError: an index that was not evaluated, or none chosen.
        """
        clips, crops = self._chosen("clip", clips, self.clips), self._chosen("crop", crops, self.crops)
        views = np.isin(self.clip_index, clips) & np.isin(self.aug_index, crops)
        return self.view_logits[:, views].mean(axis=1, dtype=np.float64).astype(np.float32)

    @staticmethod
    def _chosen(what: str, chosen: Sequence[int] | None, known: list[int]) -> list[int]:
        chosen = known if chosen is None else list(chosen)
        if not chosen or not set(chosen) <= set(known):
            raise PredictionsError(f"choose among {what}s {known}, found {chosen}")
        return chosen

    def view_subsets(self) -> dict[str, np.ndarray]:
        """Positions on the view axis of the usual protocols, by "clips x crops", such as "4x1" and "4x3".

        Each is exactly what a run with so many views gives: one crop is the central one, and one clip the central
        window, which is among the stored ones only where their number is odd (of four, none lies in the middle).
        """
        clips, crops = self.clips, self.crops
        subsets = {}
        for some_clips in filter(None, (_middle(clips), clips)):
            for some_crops in filter(None, (_middle(crops), crops)):
                views = np.isin(self.clip_index, some_clips) & np.isin(self.aug_index, some_crops)
                subsets[f"{len(some_clips)}x{len(some_crops)}"] = np.flatnonzero(views)
        return subsets

    def summary(self) -> dict[str, Any]:
        """Exact scores: ``videos``, ``classes`` and per view subset, under ``views``, counts and percentages.

        Each entry of ``views`` holds ``top1_correct`` and ``top5_correct`` (videos), ``top1`` and ``top5``
        (per cent of all videos, unrounded), ``top1_interval`` (95 %, Wilson) and ``mean_class_top1``. Ties rank by
        class index, see `metrics.top_k_correct`.

        Raises:
            PredictionsError: there are no videos, or a logit is NaN.
        """
        videos, _, classes = self.view_logits.shape
        if not videos:
            raise PredictionsError("there are no videos to score")
        if (broken := np.isnan(self.view_logits).any(axis=(1, 2))).any():
            first = self.video_names[broken.argmax()]
            raise PredictionsError(f"logits of {broken.sum()} of {videos} videos hold NaN, first of '{first}'")
        scores: dict[str, dict[str, Any]] = {}
        for name, views in self.view_subsets().items():
            logits = self.video_logits(self.clip_index[views].tolist(), self.aug_index[views].tolist())
            scores[name] = {}
            for k in (1, 5):
                correct = int(top_k_correct(logits, self.labels, k).sum())
                scores[name] |= {f"top{k}_correct": correct, f"top{k}": 100 * correct / videos}
            low, high = wilson_interval(scores[name]["top1_correct"], videos)
            matrix = confusion_matrix(self.labels, logits.argmax(axis=1), classes)
            scores[name] |= {
                "top1_interval": [100 * low, 100 * high], "mean_class_top1": 100 * mean_class_accuracy(matrix),
            }  # fmt: skip
        return {"videos": videos, "classes": classes, "views": scores}

    def save(self, path: str | Path) -> None:
        """Write one compressed .npz without pickles; the file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp")
        with beside.open("wb") as file:  # a file object: savez appends .npz to a name
            columns = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
            np.savez_compressed(file, allow_pickle=False, **columns)
        os.replace(beside, path)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            PredictionsError: the file is damaged or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(**{field.name: archive[field.name] for field in fields(cls)})
        except FileNotFoundError:
            raise
        except _UNREADABLE as error:
            raise PredictionsError(f"{path} holds no readable predictions: {error}") from error


def _middle(indices: list[int]) -> list[int] | None:
    return [indices[len(indices) // 2]] if len(indices) % 2 else None
