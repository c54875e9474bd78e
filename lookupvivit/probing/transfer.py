"""Few-shot transfer of a trained model to a labelled image dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from lookupvivit.evaluation.image_outputs import image_outputs
from lookupvivit.models.base import Model
from lookupvivit.probing.few_shot import SHOTS, FewShotScore, few_shot_scores


@dataclass(frozen=True)
class FewShotTransfer:
    """The result of `evaluate_transfer`.

    Attributes:
        scores: one per number of shots.
        num_classes: K.
        num_test_images: M.
        width: feature dimension D.
    """

    scores: list[FewShotScore]
    num_classes: int
    num_test_images: int
    width: int

    def __str__(self) -> str:
        lines = [f"{self.num_classes} classes, {self.num_test_images} test images, {self.width} features"]
        for score in self.scores:
            accuracies = ", ".join(f"{100 * accuracy:.1f}" for accuracy in score.accuracies)
            summary = f"{100 * score.mean:5.1f} % +- {100 * score.std:.1f}"
            lines.append(f"  {score.shots:3} per class: {summary}   (seeds: {accuracies})")
        return "\n".join(lines)


def evaluate_transfer(
    model: Model,
    train: VideoManifest,
    test: VideoManifest,
    shots: Sequence[int] = SHOTS,
    *,
    batch_size: int,
    device: torch.device,
    workers: int,
) -> FewShotTransfer:
    """Fit probes on the model's frozen features of few images per class, and test them.

    Args:
        model: of `lookupvivit.load_model`, on ``device``.
        train: images to choose from.
        test: images of the same classes.
        shots: numbers of training images per class.
        batch_size: images per forward pass.
        device: to compute on.
        workers: processes that read images; 0 reads them in this one.

    Raises:
        DataError: a class has fewer training images than shots, or an image cannot be read.
        ValueError: features are not finite.
    """
    _require_enough_images(train, max(shots))
    train_features = image_outputs(model, train, batch_size, device, workers, "train").features
    test_features = image_outputs(model, test, batch_size, device, workers, "test").features
    num_classes = len(train.class_names)
    scores = few_shot_scores(train_features, train.labels, test_features, test.labels, num_classes, shots)
    return FewShotTransfer(scores, num_classes, len(test), test_features.shape[1])


def _require_enough_images(train: VideoManifest, shots: int) -> None:
    counts = np.bincount(train.labels)
    smallest = int(counts.argmin())
    if counts[smallest] < shots:
        raise DataError(
            f"{train.source}: found {counts[smallest]} images of {train.class_names[smallest]!r}, expected at least "
            f"{shots}, the largest number of shots"
        )
