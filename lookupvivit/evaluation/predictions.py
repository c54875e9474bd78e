"""Predictions of a multi-view test, kept per view so that fewer views can be scored without a second run."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.datasets.manifest import CENTRE_CLIP
from lookupvivit.evaluation.metrics import confusion_matrix, mean_class_accuracy, top_k_correct, wilson_interval

# What np.load and a wrong or torn file raise between them; AttributeError: an array, not an archive, on Python 3.10.
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)

AVERAGES = ("logits", "softmax")


class PredictionsError(ValueError):
    """Predictions that are incomplete, contradictory or unreadable; one line that names what is wrong."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Raw logits of every view of every video, by every head.

    The V views of a video are all pairs of a clip (numbered along time) and a crop (left, centre, right
    or top, centre, bottom), in any order, each exactly once; beside an even number of clips also the only view of a
    1x1 test, the central crop of the central window, whose clip is -1.

    Attributes:
        video_names: (N,) str, unique.
        labels: (N,) int64 in [0, K).
        head_logits: (N, V, S, K) float32.
        heads: S names, such as compressed and lookup, or logits where a model has one head.
        clip_index: (V,) int64, the clip of each view, in order of time.
        aug_index: (V,) int64, the crop of each view.
        frame_indices: (N, V, T) int64, frames of the video that the view shows.
        boxes: (N, V, 3) int64, top, left and size of the square crop in pixels of the resized frame.
        class_names: K names.
        facts: of the test, plain JSON: ``checkpoint``, ``broken_videos`` (reasons by name), ``missing_videos``, ...

    Raises:
        PredictionsError: shapes or contents contradict the above.
    """

    video_names: np.ndarray
    labels: np.ndarray
    head_logits: np.ndarray
    heads: tuple[str, ...]
    clip_index: np.ndarray
    aug_index: np.ndarray
    frame_indices: np.ndarray
    boxes: np.ndarray
    class_names: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = {"video_names": np.str_, "labels": np.int64, "head_logits": np.float32}
        kinds |= dict.fromkeys(("clip_index", "aug_index", "frame_indices", "boxes"), np.int64)
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        for name in ("class_names", "heads"):
            object.__setattr__(self, name, tuple(str(entry) for entry in getattr(self, name)))
        self._check()

    def _check(self) -> None:
        if self.head_logits.ndim != 4:
            raise PredictionsError(f"head_logits must be (N, V, S, K), found shape {self.head_logits.shape}")
        videos, views, heads, classes = self.head_logits.shape
        frames = self.frame_indices.shape[-1]
        expected = {"video_names": (videos,), "labels": (videos,), "clip_index": (views,), "aug_index": (views,)}
        expected |= {"frame_indices": (videos, views, frames), "boxes": (videos, views, 3)}
        for name, right in expected.items():
            shape = getattr(self, name).shape
            if shape != right:
                raise PredictionsError(f"{name} must have shape {right}, found {shape}")
        if len(self.heads) != heads or not heads:
            raise PredictionsError(f"logits of {heads} heads but {len(self.heads)} names of heads")
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
        regular = self.clip_index >= 0
        found = sorted(zip(self.clip_index[regular].tolist(), self.aug_index[regular].tolist(), strict=True))
        if not found or found != [(clip, crop) for clip in self.clips for crop in self.crops]:
            raise PredictionsError(f"views must be every clip with every crop once, found {found}")
        extra = self.aug_index[~regular].tolist()
        if extra not in ([], _middle(self.crops)) or (self.clip_index < CENTRE_CLIP).any():
            raise PredictionsError(f"beside the clips there may be one central view, found crops {extra}")

    @property
    def clips(self) -> list[int]:
        """Clip indices that occur, in order of time; not the central window's."""
        return np.unique(self.clip_index[self.clip_index >= 0]).tolist()

    @property
    def crops(self) -> list[int]:
        """Crop indices that occur."""
        return np.unique(self.aug_index[self.clip_index >= 0]).tolist()

    @property
    def view_logits(self) -> np.ndarray:
        """Logits of every view, the mean over the heads as in the model's ``logits``: float32 (N, V, K)."""
        return self.logits_of("both")

    def logits_of(self, head: str) -> np.ndarray:
        """Every view's logits of one head, or their mean for "both": float32 (N, V, K).

        Raises:
            PredictionsError: there is no such head.
        """
        if head == "both":
            return self.head_logits.mean(axis=2)
        if head not in self.heads:
            raise PredictionsError(f"head: found '{head}', must be one of {', '.join(('both', *self.heads))}")
        return self.head_logits[:, :, self.heads.index(head)]

    def video_logits(
        self, views: Sequence[int] | None = None, head: str = "both", average: str = "logits"
    ) -> np.ndarray:
        """Mean over views of a head's raw logits, or of its probabilities: float32 (N, K).

        Args:
            views: positions on the view axis, as `view_subsets` gives them; all regular ones by default.
            head: of :attr:`heads`, or "both" for the mean of their logits.
            average: "logits", or "softmax" for probabilities.

        Raises:
            PredictionsError: there is no such head or average, or no view is chosen.
        """
        views = np.flatnonzero(self.clip_index >= 0) if views is None else np.asarray(views, np.int64)
        if not len(views):
            raise PredictionsError("no view is chosen")
        if average not in AVERAGES:
            raise PredictionsError(f"average: found '{average}', must be one of {', '.join(AVERAGES)}")
        logits = self.logits_of(head)[:, views].astype(np.float64)
        if average == "softmax":
            logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
            logits /= logits.sum(axis=-1, keepdims=True)
        return logits.mean(axis=1).astype(np.float32)

    def view_subsets(self) -> dict[str, np.ndarray]:
        """Positions on the view axis of every test that these views contain, by "clips x crops", such as "4x3".

        Each is exactly what a run with so many views reads. One crop is the central one. Fewer clips are those that a
        run with fewer would place at the same frames: of 4 clips the first and the last are a 2-clip run, but no three
        are a 3-clip run. One clip is the central window, which an even number of clips misses; the view kept for that
        gives 1x1.
        """
        clips, crops = self.clips, self.crops
        segments = self.facts.get("sampling") == "segments"
        subsets = {}
        if (self.clip_index == CENTRE_CLIP).any():
            subsets["1x1"] = np.flatnonzero(self.clip_index == CENTRE_CLIP)
        for count in range(1, len(clips) + 1):
            places = clips_of_a_shorter_run(len(clips), count, segments)
            for some_crops in filter(None, (_middle(crops) if len(crops) > 1 else None, crops)):
                if places is None:
                    continue
                chosen = np.isin(self.clip_index, [clips[i] for i in places]) & np.isin(self.aug_index, some_crops)
                subsets[f"{count}x{len(some_crops)}"] = np.flatnonzero(chosen)
        return subsets

    def summary(self, head: str = "both", average: str = "logits") -> dict[str, Any]:
        """Exact scores of a head (see :meth:`video_logits`).

        ``videos``, ``classes`` and per view subset, under ``views``, counts and percentages.

        Each entry of ``views`` holds ``top1_correct`` and ``top5_correct`` (videos), ``top1`` and ``top5``
        (per cent of all videos, unrounded), ``top1_interval`` (95 %, Wilson) and ``mean_class_top1``. Ties rank by
        class index, see `metrics.top_k_correct`.

        Raises:
            PredictionsError: there are no videos, or a logit is NaN.
        """
        videos, _, _, classes = self.head_logits.shape
        if not videos:
            raise PredictionsError("there are no videos to score")
        if (broken := np.isnan(self.head_logits).any(axis=(1, 2, 3))).any():
            first = self.video_names[broken.argmax()]
            raise PredictionsError(f"logits of {broken.sum()} of {videos} videos hold NaN, first of '{first}'")
        scores: dict[str, dict[str, Any]] = {}
        for name, views in self.view_subsets().items():
            logits = self.video_logits(views, head, average)
            scores[name] = {}
            for k in (1, 5):
                correct = int(top_k_correct(logits, self.labels, k).sum())
                scores[name] |= {f"top{k}_correct": correct, f"top{k}": 100 * correct / videos}
            low, high = wilson_interval(scores[name]["top1_correct"], videos)
            matrix = confusion_matrix(self.labels, logits.argmax(axis=1), classes)
            scores[name] |= {
                "top1_interval": [100 * low, 100 * high],
                "mean_class_top1": 100 * mean_class_accuracy(matrix),
            }
        return {"videos": videos, "classes": classes, "views": scores}

    def save(self, path: str | Path) -> None:
        """Write one compressed .npz without pickles; the file appears whole or not at all.

        Every attribute is an array of that name, ``facts`` a string of JSON.
        """
        columns = {entry.name: np.asarray(getattr(self, entry.name)) for entry in fields(self)}
        save_arrays(path, {**columns, "facts": np.array(json.dumps(self.facts))})

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            PredictionsError: the file is damaged or holds something else.
        """
        arrays = load_arrays(path, [field.name for field in fields(cls)])
        try:
            return cls(**{**arrays, "facts": dict(json.loads(str(arrays["facts"])))})
        except UNREADABLE as error:
            raise PredictionsError(f"{path} holds no readable predictions: {error}") from error


def clips_of_a_shorter_run(total: int, count: int, segments: bool = False) -> list[int] | None:
    """Which of ``total`` test clips a run with ``count`` of them would read; None where they do not contain it.

    Clips start at i / (total - 1) of the way and a single one at half of it (`data_pipelines.sampling.uniform_starts`);
    with segments, they read each segment at (i + 1/2) / total (`uniform_segments`).
    """
    if segments:
        step, rest = divmod(total, count)
        return None if rest or step % 2 == 0 else [place * step + step // 2 for place in range(count)]
    if count == 1:
        return [total // 2] if total % 2 else None
    step, rest = divmod(total - 1, count - 1)
    return None if rest else [place * step for place in range(count)]


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one compressed .npz without pickles; the file appears whole or not at all, folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:  # a file object: savez appends .npz to a name
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(beside, path)


def load_arrays(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays ``names`` of what :func:`save_arrays` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        PredictionsError: the file is damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise PredictionsError(f"{path} holds no readable predictions: {error}") from error


def _middle(indices: list[int]) -> list[int] | None:
    return [indices[len(indices) // 2]] if len(indices) % 2 else None
