"""Metrics of the robustness datasets from logits and features (paper, Tables 2 and 6, Fig. 4); values in [0, 1].

ImageNet-A and -R (Hendrycks et al., 2021) contain 200 of ImageNet's classes. A prediction is the class with the highest
logit among these 200.
ImageNet-O contains images of none of ImageNet's classes. A model should be less confident about them than about
ImageNet's validation images.
ImageNet-C (Hendrycks and Dietterich, 2019) contains ImageNet's validation images with 15 corruptions at 5 severities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SEVERITIES = 5
# The 15 corruptions and AlexNet's mean top-1 error under each, by which other errors are divided
# (google-research/augmix, imagenet.py).
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
# Four further corruptions of ImageNet-C, for validation; no metric includes them.
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")


def subset_columns(class_names: Sequence[str], subset: Sequence[str]) -> np.ndarray:
    """Indices of the classes ``subset`` in ``class_names``, int64 (len(subset),).

    Raises:
        ValueError: a class is not in ``class_names``, or a name occurs twice.
    """
    columns = {name: column for column, name in enumerate(class_names)}
    missing = [name for name in subset if name not in columns]
    if missing:
        raise ValueError(
            f"class names: {missing[0]!r} and {len(missing) - 1} more of {len(subset)} classes not found among the "
            f"model's {len(class_names)}, {class_names[0]!r} .. {class_names[-1]!r}"
        )
    if len(set(subset)) < len(subset) or len(columns) < len(class_names):
        raise ValueError("class names: found a name twice, expected distinct names")
    return np.array([columns[name] for name in subset], np.int64)


def subset_predictions(logits: ArrayLike, columns: ArrayLike) -> np.ndarray:
    """The class with the highest logit among ``columns``, int64 (N,). Of equal logits, the earlier column wins.

    Args:
        logits: (N, K) of all classes.
        columns: classes that can be predicted, such as those of `subset_columns`.

    Raises:
        ValueError: logits are not (N, K), or contain NaN or infinity.
    """
    columns = np.asarray(columns)
    return columns[_finite(logits)[:, columns].argmax(axis=1)]


def outlier_scores(logits: ArrayLike, columns: ArrayLike) -> np.ndarray:
    """A score that is high for images of none of the classes ``columns``, float64 (N,) in [-1, 0).

    It is the negative of the highest softmax probability among these classes (hendrycks/natural-adv-examples).

    Args:
        logits: (N, K) of all classes.
        columns: the classes of the softmax.

    Raises:
        ValueError: logits are not (N, K), or contain NaN or infinity.
    """
    logits = _finite(logits)[:, np.asarray(columns)].astype(np.float64)
    return -1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def average_precision(positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function: sum of precision x increase in recall, in [0, 1].

    Examples with equal scores are retrieved together, as in scikit-learn's average_precision_score. Constant scores
    give the share of positives.

    Args:
        positive: bool (N,), the examples that should have high scores.
        scores: (N,).

    Raises:
        ValueError: shapes differ, a score is NaN, or nothing is positive.
    """
    positive, scores = np.asarray(positive, bool), np.asarray(scores, np.float64)
    if positive.ndim != 1 or positive.shape != scores.shape:
        raise ValueError(f"positive, scores: found shapes {positive.shape} and {scores.shape}, expected (N,) twice")
    if np.isnan(scores).any():
        raise ValueError(f"scores: {np.isnan(scores).sum()} of {len(scores)} are NaN")
    if not positive.any():
        raise ValueError("positive: found no positive example, expected at least one; recall is undefined")
    order = np.argsort(-scores, kind="stable")
    last_of_equal = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true_positives = np.cumsum(positive[order])[last_of_equal]
    precision = true_positives / (last_of_equal + 1)
    recall_increase = np.diff(true_positives, prepend=0) / positive.sum()
    return float(precision @ recall_increase)


def outlier_aupr(inliers: ArrayLike, outliers: ArrayLike) -> float:
    """The metric of ImageNet-O: `average_precision` of detecting outliers among inliers.

    Args:
        inliers: `outlier_scores` (N,) of ImageNet's validation images of the 200 classes.
        outliers: `outlier_scores` (M,) of ImageNet-O. Chance level is M / (N + M), 2,000 of 12,000.
    """
    inliers, outliers = np.asarray(inliers), np.asarray(outliers)
    is_outlier = np.arange(len(outliers) + len(inliers)) < len(outliers)
    return average_precision(is_outlier, np.append(outliers, inliers))


class CorruptionScores(NamedTuple):
    """The metrics of ImageNet-C (Table 6).

    Attributes:
        by_severity: accuracy at each severity, averaged over corruptions, (5,).
        accuracy: average of ``by_severity``, the value in Table 2.
        errors: error of each corruption, averaged over severities, divided by AlexNet's.
        mce: mean corruption error, the average of ``errors``; AlexNet has 1, lower is better.
    """

    by_severity: np.ndarray
    accuracy: float
    errors: dict[str, float]
    mce: float


def corruption_scores(accuracies: Mapping[str, Sequence[float]]) -> CorruptionScores:
    """Summarise accuracies at severities 1 to 5.

    Args:
        accuracies: by corruption, all of `ALEXNET_ERRORS`. `EXTRA_CORRUPTIONS` are ignored, as in the literature.

    Raises:
        ValueError: a corruption is missing or unknown, or does not have 5 accuracies in [0, 1]. Averages over fewer
            would look like those of the whole dataset.
    """
    known = (*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS)
    for name in ALEXNET_ERRORS:
        if name not in accuracies:
            raise ValueError(f"{name}: found no accuracies, expected all {len(ALEXNET_ERRORS)} corruptions")
    for name, values in accuracies.items():
        if name not in known:
            raise ValueError(f"{name}: unknown corruption, expected {', '.join(known)}")
        if np.shape(values) != (SEVERITIES,) or not all(0 <= value <= 1 for value in values):
            raise ValueError(f"{name}: found accuracies {list(values)}, expected {SEVERITIES} values in [0, 1]")
    table = np.array([accuracies[name] for name in ALEXNET_ERRORS], np.float64)  # (15, 5)
    errors = (1 - table.mean(axis=1)) / np.array(list(ALEXNET_ERRORS.values()))
    return CorruptionScores(
        by_severity=table.mean(axis=0),
        accuracy=float(table.mean()),
        errors=dict(zip(ALEXNET_ERRORS, errors.tolist(), strict=True)),
        mce=float(errors.mean()),
    )


def feature_deviation(clean: ArrayLike, corrupted: ArrayLike) -> np.ndarray:
    """Relative change of features under corruption: |F(x) - F(x_c)| / |F(x)|, float64 (N,) (appendix A.1, Fig. 4).

    Args:
        clean, corrupted: features (N, D) of the same images in the same order.

    Raises:
        ValueError: shapes differ, or a clean feature is zero or NaN.
    """
    clean, corrupted = np.asarray(clean, np.float64), np.asarray(corrupted, np.float64)
    if clean.ndim != 2 or clean.shape != corrupted.shape:
        raise ValueError(f"features: found shapes {clean.shape} and {corrupted.shape}, expected (N, D) twice")
    norms = np.linalg.norm(clean, axis=1)
    if not (norms > 0).all():
        raise ValueError(f"clean: {(~(norms > 0)).sum()} of {len(norms)} features are zero or NaN")
    return np.linalg.norm(clean - corrupted, axis=1) / norms


def _finite(logits: ArrayLike) -> np.ndarray:
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise ValueError(f"logits: found shape {logits.shape}, expected (N, K)")
    num_invalid = int((~np.isfinite(logits)).any(axis=1).sum())
    if num_invalid:
        raise ValueError(f"logits: {num_invalid} of {len(logits)} rows contain NaN or infinity")
    return logits
