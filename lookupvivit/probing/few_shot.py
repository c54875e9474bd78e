"""Few-shot transfer (the paper's Table 9): a linear probe in closed form on frozen features of k images per class.

The probe is big_vision's (evaluators/fewshot_lsr.py): ridge regression from standardised features to -1 and +1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

L2 = 2.0**10  # fixed there for every set and number of shots
BIAS = 100.0  # the constant feature; large, so that the penalty hardly holds the bias back
STD_FLOOR = 1e-5
SHOTS, SEEDS = (1, 5, 25), (0, 1, 2)


@dataclass(frozen=True, eq=False)
class RidgeProbe:
    """A fitted linear classifier.

    Attributes:
        mean, std: (D,) of the support set's features; `STD_FLOOR` is added to the standard deviation.
        weights: (D + 1, K), the last row that of the constant feature `BIAS`.
    """

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, features: ArrayLike, labels: ArrayLike, num_classes: int, l2: float = L2) -> RidgeProbe:
        """Solve (X'X + l2 I) W = X'Y in float64, with targets Y of +1 for the own class and -1 for the others.

        Args:
            features: (N, D) of the support set.
            labels: (N,) in [0, num_classes).

        Raises:
            ValueError: shapes do not fit, a label lies outside, or a feature is not finite.
        """
        features = _features(features, "features")
        labels = np.asarray(labels)
        if labels.shape != (len(features),) or not len(features):
            raise ValueError(f"{len(features)} features but labels of shape {labels.shape}")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"labels must lie in [0, {num_classes}), found {labels.min()} to {labels.max()}")
        mean, std = features.mean(axis=0), features.std(axis=0) + STD_FLOOR
        inputs = _standardised(features, mean, std)  # (N, D + 1)
        targets = 2.0 * (labels[:, None] == np.arange(num_classes)) - 1
        count, width = inputs.shape
        if count < width:  # the same solution from the smaller of the two matrices
            weights = inputs.T @ np.linalg.solve(inputs @ inputs.T + l2 * np.eye(count), targets)
        else:
            weights = np.linalg.solve(inputs.T @ inputs + l2 * np.eye(width), inputs.T @ targets)
        return cls(mean, std, weights)

    def scores(self, features: ArrayLike) -> np.ndarray:
        """Outputs for features (N, D), float64 (N, K); the highest is the prediction."""
        return _standardised(_features(features, "features"), self.mean, self.std) @ self.weights


@dataclass(frozen=True)
class FewShotScore:
    """Accuracies in [0, 1] with ``shots`` images per class, one for each seed.

    Attributes:
        mean: over the seeds; Table 9's figure.
        spread: sample standard deviation over the seeds, 0 of a single one.
    """

    shots: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def few_shot(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    num_classes: int,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
) -> list[FewShotScore]:
    """Accuracy on all of ``test`` of a probe fitted to ``shots`` images per class of ``train``.

    Args:
        train, test: features (N, D) and (M, D).
        train_labels, test_labels: (N,) and (M,) in [0, num_classes).

    Raises:
        ValueError: a class has fewer training images than shots (a set of other sizes would pass for this one), or as
            `RidgeProbe.fit`.
    """
    train, test = _features(train, "train"), _features(test, "test")
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    if test.shape[1] != train.shape[1] or test_labels.shape != (len(test),) or not len(test):
        raise ValueError(
            f"found features {train.shape} to train on, {test.shape} to test on and test labels {test_labels.shape}; "
            "must be (N, D), (M, D) and (M,)"
        )
    scores = []
    for count in shots:
        accuracies = []
        for seed in seeds:
            chosen = support_set(train_labels, num_classes, count, seed)
            probe = RidgeProbe.fit(train[chosen], train_labels[chosen], num_classes)
            accuracies.append(float((probe.scores(test).argmax(axis=1) == test_labels).mean()))
        scores.append(FewShotScore(count, tuple(accuracies)))
    return scores


def support_set(labels: ArrayLike, num_classes: int, shots: int, seed: int) -> np.ndarray:
    """Indices of ``shots`` images of each class, class by class, int64 (num_classes * shots,).

    Of each class in turn the images are permuted and the first taken, so that with one seed the images of few shots
    are among those of more.

    Raises:
        ValueError: a class has fewer images.
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    chosen = []
    for label in range(num_classes):
        images = np.flatnonzero(labels == label)
        if len(images) < shots:
            raise ValueError(f"class {label} has {len(images)} images to train on, {shots} shots need as many")
        chosen.append(rng.permutation(images)[:shots])
    return np.concatenate(chosen)


def _features(values: ArrayLike, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"{what} must be (N, D), found shape {values.shape}")
    if bad := int((~np.isfinite(values)).any(axis=1).sum()):
        raise ValueError(f"{what}: {bad} of {len(values)} rows hold NaN or infinity")
    return values


def _standardised(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.concatenate([(features - mean) / std, np.full((len(features), 1), BIAS)], axis=1)
