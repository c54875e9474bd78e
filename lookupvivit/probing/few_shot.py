"""Few-shot classification by a linear probe in closed form, fitted on frozen features (paper, Table 9).

The probe is that of big_vision (evaluators/fewshot_lsr.py): ridge regression from standardised features to targets of
-1 and +1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Constants of big_vision.
L2 = 2.0**10  # penalty, the same for all datasets and numbers of shots
BIAS = 100.0  # value of the constant feature; large, so that the penalty hardly restricts the bias
STD_FLOOR = 1e-5  # added to the standard deviation of every feature

SHOTS, SEEDS = (1, 5, 25), (0, 1, 2)  # defaults


@dataclass(frozen=True, eq=False)
class RidgeProbe:
    """A fitted linear classifier.

    Attributes:
        mean, std: (D,) of the training features; `STD_FLOOR` is included in ``std``.
        weights: (D + 1, K); the last row belongs to the constant feature `BIAS`.
    """

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, features: ArrayLike, labels: ArrayLike, num_classes: int, l2: float = L2) -> RidgeProbe:
        """Solve (X'X + l2 I) W = X'Y in float64, where Y is +1 for an example's class and -1 for the others.

        Args:
            features: (N, D).
            labels: (N,) in [0, num_classes).
            num_classes: K.
            l2: penalty.

        Raises:
            ValueError: shapes do not fit, a label is out of range, or a feature is not finite.
        """
        features = _as_features(features, "features")
        labels = np.asarray(labels)
        if labels.shape != (len(features),) or not len(features):
            raise ValueError(f"labels: found shape {labels.shape} for {len(features)} features, expected (N,), N > 0")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"labels: found {labels.min()} to {labels.max()}, expected values in [0, {num_classes})")
        mean, std = features.mean(axis=0), features.std(axis=0) + STD_FLOOR
        inputs = _standardise(features, mean, std)  # (N, D + 1)
        targets = 2.0 * (labels[:, None] == np.arange(num_classes)) - 1  # (N, K)
        count, width = inputs.shape
        if count < width:  # the dual form has the same solution and a smaller matrix
            weights = inputs.T @ np.linalg.solve(inputs @ inputs.T + l2 * np.eye(count), targets)
        else:
            weights = np.linalg.solve(inputs.T @ inputs + l2 * np.eye(width), inputs.T @ targets)
        return cls(mean, std, weights)

    def scores(self, features: ArrayLike) -> np.ndarray:
        """Scores of features (N, D), float64 (N, K); the highest one is the prediction."""
        return _standardise(_as_features(features, "features"), self.mean, self.std) @ self.weights


@dataclass(frozen=True)
class FewShotScore:
    """Accuracies in [0, 1] for one number of shots.

    Attributes:
        shots: training images per class.
        accuracies: one per seed.
    """

    shots: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds, the value in Table 9."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Sample standard deviation over the seeds; 0 for a single seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


def few_shot_scores(
    train: ArrayLike,
    train_labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    num_classes: int,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
) -> list[FewShotScore]:
    """Fit a probe on ``shots`` images per class, and measure its accuracy on all test images.

    Args:
        train, test: features (N, D) and (M, D).
        train_labels, test_labels: (N,) and (M,) in [0, num_classes).
        num_classes: K.
        shots: numbers of training images per class.
        seeds: of the choice of training images.

    Returns:
        One score per number of shots.

    Raises:
        ValueError: as `RidgeProbe.fit`, or a class has fewer training images than shots.
    """
    train, test = _as_features(train, "train"), _as_features(test, "test")
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    if test.shape[1] != train.shape[1] or test_labels.shape != (len(test),) or not len(test):
        raise ValueError(
            f"test: found features {test.shape} and labels {test_labels.shape} for training features {train.shape}, "
            "expected (M, D) and (M,) for (N, D)"
        )
    scores = []
    for count in shots:
        accuracies = []
        for seed in seeds:
            chosen = choose_support_set(train_labels, num_classes, count, seed)
            probe = RidgeProbe.fit(train[chosen], train_labels[chosen], num_classes)
            accuracies.append(float((probe.scores(test).argmax(axis=1) == test_labels).mean()))
        scores.append(FewShotScore(count, tuple(accuracies)))
    return scores


def choose_support_set(labels: ArrayLike, num_classes: int, shots: int, seed: int) -> np.ndarray:
    """Choose ``shots`` images of each class at random.

    With the same seed, the images for fewer shots are among those for more shots.

    Args:
        labels: (N,) in [0, num_classes).
        num_classes: K.
        shots: images per class.
        seed: of the choice.

    Returns:
        Indices, class by class, int64 (num_classes * shots,).

    Raises:
        ValueError: a class has fewer images.
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    chosen = []
    for label in range(num_classes):
        images = np.flatnonzero(labels == label)
        if len(images) < shots:
            raise ValueError(f"class {label}: found {len(images)} training images, expected at least {shots}")
        chosen.append(rng.permutation(images)[:shots])
    return np.concatenate(chosen)


def _as_features(values: ArrayLike, name: str) -> np.ndarray:
    """Float64 (N, D); ``name`` is for errors."""
    features = np.asarray(values, np.float64)
    if features.ndim != 2:
        raise ValueError(f"{name}: found shape {features.shape}, expected (N, D)")
    num_invalid = int((~np.isfinite(features)).any(axis=1).sum())
    if num_invalid:
        raise ValueError(f"{name}: {num_invalid} of {len(features)} rows contain NaN or infinity")
    return features


def _standardise(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Standardised features and the constant feature, (N, D + 1)."""
    return np.concatenate([(features - mean) / std, np.full((len(features), 1), BIAS)], axis=1)
