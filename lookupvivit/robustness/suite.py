"""ImageNet-A, -R, -O and -C through a trained model, set by set: what is done is saved, and not done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data_pipelines.datasets.class_folders import read_class_folders
from data_pipelines.datasets.class_names import class_names
from data_pipelines.datasets.imagenet_c import corruption_folders, other_folders
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.io.hashing import file_digest
from lookupvivit.evaluation.image_outputs import image_outputs, picture_names
from lookupvivit.evaluation.predictions import PredictionsError, load_arrays, save_arrays
from lookupvivit.robustness.metrics import (
    ALEXNET_ERRORS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corruption_scores,
    feature_deviation,
    outlier_aupr,
    outlier_scores,
    subset_answers,
    subset_columns,
)
from lookupvivit.weights.files import weights_file

PUBLISHED_SIZES = {"imagenet_a": 7_500, "imagenet_r": 30_000, "imagenet_o": 2_000}  # pictures


@dataclass(frozen=True, eq=False)
class ImageResults:
    """What became of every picture of a set.

    Attributes:
        names: (N,) str, "<class>/<file>".
        labels, predicted: (N,) int64, the model's class ids; of the classes that can be the answer.
        confidence: (N,) float64, the highest probability among these classes.
        deviation: (N,) float32, how far the feature is from the clean picture's; (0,) where that was not asked for.
    """

    names: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    deviation: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float((self.labels == self.predicted).mean())


class Suite:
    """A model, and how pictures go through it.

    Args:
        model: of `lookupvivit.load_model`, on ``device``; its class names must be WordNet ids for -A, -R and -O.
        source: the run or weights file it came from; results of other weights are not taken for this one's.
        folder: where a file per set is saved and looked for.
        batch_size, workers: of `images.image_outputs`.

    Attributes:
        fingerprint: of the weights and their preprocessing.

    Raises:
        DataError: the weights do not tell their class names or preprocessing.
    """

    def __init__(
        self, model: nn.Module, source: str | Path, folder: Path, batch_size: int, device: torch.device, workers: int
    ) -> None:
        self.model, self.folder, self.batch_size = model, Path(folder), batch_size
        self.device, self.workers = device, workers
        try:
            self._class_names, how = model.class_names, model.preprocess
        except AttributeError as error:
            raise DataError(str(error)) from None
        self.fingerprint = f"{file_digest(weights_file(source))} {how}"

    def subset(self, name: str, folder: str | Path) -> dict[str, Any]:
        """``accuracy`` and ``pictures`` of "imagenet_a" or "imagenet_r"."""
        columns = self._columns(name)
        results = self._results(name, read_class_folders(folder, class_names(name)), columns)
        return {"accuracy": results.accuracy, "pictures": len(results.names)}

    def outliers(self, folder: str | Path, imagenet: str | Path) -> dict[str, Any]:
        """``aupr`` of telling ImageNet-O in ``folder`` from the same classes of ImageNet's validation pictures."""
        columns, classes = self._columns("imagenet_o"), class_names("imagenet_o")
        manifests = read_class_folders(folder, classes), read_class_folders(imagenet, classes, among_others=True)
        outliers = self._results("imagenet_o", manifests[0], columns)
        inliers = self._results("imagenet_o_inliers", manifests[1], columns)
        aupr = outlier_aupr(-inliers.confidence, -outliers.confidence)
        return {"aupr": aupr, "pictures": len(outliers.names), "inliers": len(inliers.names)}

    def corruptions(self, folder: str | Path, imagenet: str | Path | None = None) -> dict[str, Any]:
        """Accuracy under every corruption, ``accuracies`` [5] by name with None for what is not there.

        ``other_folders`` are called otherwise. Where all is there, also ``by_severity``, ``accuracy``, ``errors`` and
        ``mce`` of `corruption_scores`. With ``imagenet``, the validation pictures, also ``deviations``.

        Raises:
            DataError: a cell has other pictures than the first, or one that ``imagenet`` lacks.
        """
        classes = self._class_names
        columns = np.arange(len(classes))
        clean = None if imagenet is None else _Clean(self, read_class_folders(imagenet, classes))
        report: dict[str, Any] = {"accuracies": {}, "deviations": {}}
        first: ImageResults | None = None
        for corruption, there in corruption_folders(folder, tuple(ALEXNET_ERRORS)).items():
            row: list[float | None] = [None] * SEVERITIES
            means: list[float | None] = [None] * SEVERITIES
            for severity, place in there.items():
                manifest = read_class_folders(place, classes)
                if first is not None and (names := picture_names(manifest)).tolist() != first.names.tolist():
                    raise DataError(
                        f"{place}: found {len(names)} pictures, must be the same {len(first.names)} as in the first "
                        "corruption and severity; is it unpacked whole?"
                    )
                results = self._results(f"imagenet_c/{corruption}_{severity}", manifest, columns, clean)
                first = results if first is None else first
                row[severity - 1] = results.accuracy
                if clean is not None:
                    means[severity - 1] = float(results.deviation.mean())
            report["accuracies"][corruption], report["deviations"][corruption] = row, means
        if clean is None:
            del report["deviations"]
        if all(None not in row for row in report["accuracies"].values()):
            scores = corruption_scores(report["accuracies"])
            report |= {**scores._asdict(), "by_severity": scores.by_severity.tolist()}
        others = other_folders(folder, (*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS))
        return {**report, "pictures": len(first.names), "other_folders": others}

    def deviations(self) -> np.ndarray:
        """Saved feature deviations of every picture under all corruptions, (15, 5, N), for Fig. 4."""
        cells = [[f"imagenet_c/{name}_{level}" for level in range(1, SEVERITIES + 1)] for name in ALEXNET_ERRORS]
        return np.array([[self._saved(cell).deviation for cell in row] for row in cells])

    def _columns(self, name: str) -> np.ndarray:
        try:
            return subset_columns(self._class_names, class_names(name))
        except ValueError as error:
            raise DataError(f"{name}: the model must have its WordNet ids as class names, but {error}") from None

    def _results(
        self, name: str, manifest: VideoManifest, columns: np.ndarray, clean: _Clean | None = None
    ) -> ImageResults:
        names = picture_names(manifest)
        saved = self._saved(name)
        if saved is not None and np.array_equal(saved.names, names) and (clean is None or len(saved.deviation)):
            return saved
        cropped = name.startswith("imagenet_c/")
        logits, features = self.outputs(manifest, name, cropped)
        if (broken := ~np.isfinite(logits).all(axis=1)).any():
            raise DataError(f"{name}: the model gives NaN or infinite logits for {names[broken.argmax()]}")
        deviation = np.zeros(0)
        if clean is not None:
            deviation = feature_deviation(clean.features(names, manifest.source), features)
        results = ImageResults(
            names,
            columns[manifest.labels],
            subset_answers(logits, columns),
            -outlier_scores(logits, columns),
            deviation.astype(np.float32),
        )
        arrays = {field.name: getattr(results, field.name) for field in fields(results)}
        save_arrays(self.folder / f"{name}.npz", {**arrays, "model": np.array(self.fingerprint)})
        return results

    def outputs(self, manifest: VideoManifest, name: str, cropped: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Logits and features of all pictures."""
        return image_outputs(self.model, manifest, self.batch_size, self.device, self.workers, name, cropped)

    def _saved(self, name: str) -> ImageResults | None:
        """What an earlier run of the same model left, None where there is nothing or it cannot be read."""
        keys = [field.name for field in fields(ImageResults)]
        try:
            arrays = load_arrays(self.folder / f"{name}.npz", [*keys, "model"])
        except (FileNotFoundError, PredictionsError):
            return None
        if arrays.pop("model").item() != self.fingerprint:
            return None
        return ImageResults(**arrays)


class _Clean:
    """Features of the uncorrupted pictures, computed when they are first asked for."""

    def __init__(self, suite: Suite, manifest: VideoManifest) -> None:
        self._suite, self._manifest = suite, manifest
        self._rows = {name: row for row, name in enumerate(picture_names(manifest).tolist())}
        self._features: np.ndarray | None = None

    def features(self, names: Sequence[str], source: str) -> np.ndarray:
        """Those of ``names`` (N, D), which came from the folder ``source``."""
        lacking = [name for name in names if name not in self._rows]
        if lacking:
            raise DataError(
                f"{self._manifest.source}: lacks {lacking[0]} ({len(lacking)} missing), which {source} holds corrupted"
            )
        if self._features is None:
            _, self._features = self._suite.outputs(self._manifest, "imagenet, clean")
        return self._features[[self._rows[name] for name in names]]
