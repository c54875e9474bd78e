"""Run a trained model on ImageNet-A, -R, -O and -C. The results of each part are saved, and reused by later calls."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.datasets.class_folders import read_class_folders
from data_pipelines.datasets.class_names import class_names
from data_pipelines.datasets.imagenet_c import corruption_folders, unrecognized_folders
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.io.hashing import file_digest
from data_pipelines.io.tar_paths import size_and_mtime
from lookupvivit.evaluation.array_files import PredictionsError, load_arrays, save_arrays
from lookupvivit.evaluation.image_outputs import ImageOutputs, image_names, image_outputs
from lookupvivit.models.base import Model
from lookupvivit.robustness.metrics import (
    ALEXNET_ERRORS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corruption_scores,
    feature_deviation,
    outlier_aupr,
    outlier_scores,
    subset_columns,
    subset_predictions,
)
from lookupvivit.robustness.report import NUM_IMAGES
from lookupvivit.weights.files import WeightsError, weights_file
from lookupvivit.weights.metadata import class_names_of, preprocess_of


@dataclass(frozen=True, eq=False)
class ImageResults:
    """Results for every image of a dataset.

    Attributes:
        names: (N,) str, "<class>/<file>".
        labels: (N,) int64, class ids of the model.
        predicted: (N,) int64, class ids of the model, among the classes of the dataset.
        confidence: (N,) float64, the highest probability among these classes.
        deviation: (N,) float32, `feature_deviation` from the clean image; (0,) if it was not computed.
    """

    names: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    deviation: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float((self.labels == self.predicted).mean())


class RobustnessSuite:
    """The robustness datasets for one model.

    Args:
        model: of `lookupvivit.load_model`, on ``device``. For -A, -R and -O, its class names must be WordNet ids.
        source: the run or weights file that the model came from. Saved results of other weights are not used.
        folder: where the results are saved, one file per part.
        batch_size: images per forward pass.
        device: to compute on.
        workers: processes that read images; 0 reads them in this one.

    Attributes:
        fingerprint: identifies the weights and their preprocessing.

    Raises:
        DataError: the model does not know its class names or preprocessing.
    """

    def __init__(
        self, model: Model, source: str | Path, folder: Path, batch_size: int, device: torch.device, workers: int
    ) -> None:
        self.model, self.folder, self.batch_size = model, Path(folder), batch_size
        self.device, self.workers = device, workers
        try:
            self._class_names, preprocess = class_names_of(model), preprocess_of(model)
        except WeightsError as error:
            raise DataError(str(error)) from None
        self.fingerprint = f"{file_digest(weights_file(source))} {preprocess}"

    def evaluate_subset(self, name: str, folder: str | Path) -> dict[str, Any]:
        """Evaluate on "imagenet_a" or "imagenet_r". Returns ``accuracy`` and the number of images."""
        columns = self._columns(name)
        results = self._results(name, read_class_folders(folder, class_names(name)), columns)
        return {"accuracy": results.accuracy, NUM_IMAGES: len(results.names)}

    def evaluate_outliers(self, folder: str | Path, imagenet: str | Path) -> dict[str, Any]:
        """Evaluate on ImageNet-O.

        Args:
            folder: of ImageNet-O.
            imagenet: of ImageNet's validation images. Only the classes of ImageNet-O are used.

        Returns:
            ``aupr`` of `outlier_aupr`, and the numbers of images and of ``inliers``.
        """
        columns, classes = self._columns("imagenet_o"), class_names("imagenet_o")
        outlier_set = read_class_folders(folder, classes)
        inlier_set = read_class_folders(imagenet, classes, allow_other_folders=True)
        outliers = self._results("imagenet_o", outlier_set, columns)
        inliers = self._results("imagenet_o_inliers", inlier_set, columns)
        aupr = outlier_aupr(-inliers.confidence, -outliers.confidence)
        return {"aupr": aupr, NUM_IMAGES: len(outliers.names), "inliers": len(inliers.names)}

    def evaluate_corruptions(self, folder: str | Path, imagenet: str | Path | None = None) -> dict[str, Any]:
        """Evaluate on ImageNet-C.

        Args:
            folder: of ImageNet-C. Corruptions and severities may be missing.
            imagenet: of ImageNet's validation images, for feature deviations.

        Returns:
            ``accuracies``: by corruption, a list of 5 with None where images are missing. ``deviations``, with
            ``imagenet``: mean feature deviations in the same form. If nothing is missing, also the fields of
            `corruption_scores`. The number of images, and ``other_folders`` with names that are not corruptions.

        Raises:
            DataError: the images of two severities differ, or one is missing in ``imagenet``.
        """
        classes = self._class_names
        clean = None if imagenet is None else _CleanFeatures(self, read_class_folders(imagenet, classes))
        accuracies: dict[str, list[float | None]] = {name: [None] * SEVERITIES for name in ALEXNET_ERRORS}
        deviations: dict[str, list[float | None]] = {name: [None] * SEVERITIES for name in ALEXNET_ERRORS}
        first: ImageResults | None = None
        for corruption, severities in corruption_folders(folder, tuple(ALEXNET_ERRORS)).items():
            for severity, images in severities.items():
                manifest = read_class_folders(images, classes)
                if first is not None:
                    _require_same_images(manifest, first)
                name = f"imagenet_c/{corruption}_{severity}"
                results = self._results(name, manifest, np.arange(len(classes)), clean)
                first = first or results
                accuracies[corruption][severity - 1] = results.accuracy
                if clean is not None:
                    deviations[corruption][severity - 1] = float(results.deviation.mean())
        report: dict[str, Any] = {"accuracies": accuracies}
        if clean is not None:
            report["deviations"] = deviations
        present = {name: [value for value in row if value is not None] for name, row in accuracies.items()}
        if all(len(row) == SEVERITIES for row in present.values()):
            scores = corruption_scores(present)
            report |= {**scores._asdict(), "by_severity": scores.by_severity.tolist()}
        report[NUM_IMAGES] = len(first.names) if first else 0
        report["other_folders"] = unrecognized_folders(folder, (*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS))
        return report

    def deviations(self) -> np.ndarray:
        """Saved feature deviations of every image under all corruptions, (15, 5, N), for Fig. 4.

        Raises:
            DataError: `evaluate_corruptions` has not saved all of them.
        """
        cells = [[f"imagenet_c/{name}_{level}" for level in range(1, SEVERITIES + 1)] for name in ALEXNET_ERRORS]
        return np.array([[self._require_saved(cell).deviation for cell in row] for row in cells])

    def outputs(self, manifest: VideoManifest, description: str, cropped: bool = False) -> ImageOutputs:
        """Logits and features of all images; see `image_outputs`."""
        return image_outputs(self.model, manifest, self.batch_size, self.device, self.workers, description, cropped)

    def _columns(self, name: str) -> np.ndarray:
        try:
            return subset_columns(self._class_names, class_names(name))
        except ValueError as error:
            raise DataError(f"{name}: the model's class names are not the WordNet ids: {error}") from None

    def _results(
        self, name: str, manifest: VideoManifest, columns: np.ndarray, clean: _CleanFeatures | None = None
    ) -> ImageResults:
        """The saved results of a part, or new ones.

        Args:
            name: of the part and its file.
            manifest: its images, with labels that index ``columns``.
            columns: the model's class ids of the part's classes.
            clean: features to compute deviations from.
        """
        names, images = image_names(manifest), _files_digest(manifest) + (clean.digest if clean else "")
        saved = self._saved(name, images)
        if saved is not None and np.array_equal(saved.names, names) and (clean is None or len(saved.deviation)):
            return saved
        is_cropped = name.startswith("imagenet_c/")
        logits, features = self.outputs(manifest, name, is_cropped)
        invalid = ~np.isfinite(logits).all(axis=1)
        if invalid.any():
            raise DataError(f"{name}: the model returns NaN or infinite logits for {names[invalid.argmax()]}")
        deviation = np.zeros(0) if clean is None else feature_deviation(clean.of(names, manifest.source), features)
        results = ImageResults(
            names=names,
            labels=columns[manifest.labels],
            predicted=subset_predictions(logits, columns),
            confidence=-outlier_scores(logits, columns),
            deviation=deviation.astype(np.float32),
        )
        arrays = {field.name: getattr(results, field.name) for field in fields(results)}
        save_arrays(self._file(name), {**arrays, "model": np.array(self.fingerprint), "images": np.array(images)})
        return results

    def _saved(self, name: str, images: str | None = None) -> ImageResults | None:
        """The results that an earlier call saved for the same weights; None if there are none or they are corrupt.

        Args:
            images: digest of the images that they must be of; None: any.
        """
        keys = [field.name for field in fields(ImageResults)]
        try:
            arrays = load_arrays(self._file(name), [*keys, "model", "images"])
        except (FileNotFoundError, PredictionsError):
            return None
        is_other = images is not None and arrays["images"].item() != images
        if arrays.pop("model").item() != self.fingerprint or is_other:
            return None
        del arrays["images"]
        return ImageResults(**arrays)

    def _require_saved(self, name: str) -> ImageResults:
        results = self._saved(name)
        if results is None:
            raise DataError(f"{self._file(name)}: expected saved results of this model")
        return results

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


class _CleanFeatures:
    """Features of the uncorrupted images, computed on first use."""

    def __init__(self, suite: RobustnessSuite, manifest: VideoManifest) -> None:
        self._suite, self._manifest = suite, manifest
        self._rows = {name: row for row, name in enumerate(image_names(manifest).tolist())}
        self.digest = _files_digest(manifest)
        self._features: np.ndarray | None = None

    def of(self, names: np.ndarray, source: str) -> np.ndarray:
        """Features (N, D) of the clean versions of ``names`` in the folder ``source``."""
        missing = [name for name in names.tolist() if name not in self._rows]
        if missing:
            raise DataError(
                f"{self._manifest.source}: {missing[0]} not found ({len(missing)} missing), expected the clean version "
                f"of every image in {source}"
            )
        if self._features is None:
            self._features = self._suite.outputs(self._manifest, "imagenet, clean").features
        return self._features[[self._rows[name] for name in names.tolist()]]


def _require_same_images(manifest: VideoManifest, first: ImageResults) -> None:
    names = image_names(manifest)
    if names.tolist() != first.names.tolist():
        raise DataError(
            f"{manifest.source}: found {len(names)} images, expected the same {len(first.names)} as in the first "
            "corruption and severity; is it unpacked completely?"
        )


def _files_digest(manifest: VideoManifest) -> str:
    """A digest of the sizes and modification times of all images."""
    facts = [size_and_mtime(path) for path in manifest.paths]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
