"""The paper's robustness figures (Tables 2 and 6, Fig. 4) from logits and features; shares and scores in [0, 1].

ImageNet-A and -R (Hendrycks et al., 2021) hold 200 of ImageNet's classes: the answer is the highest of their logits.
ImageNet-O holds pictures of none of its classes, which a model should be less sure of than of ImageNet's own.
ImageNet-C (Hendrycks and Dietterich, 2019) holds ImageNet's validation pictures, corrupted in 15 ways of 5 severities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SEVERITIES = 5
# The corruptions that count, and AlexNet's mean top-1 error under each, to which the others are set in relation
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
# Four more that come with ImageNet-C for validation and count in no figure.
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")


def subset_columns(class_names: Sequence[str], subset: Sequence[str]) -> np.ndarray:
    """Where the classes ``subset`` stand among a model's ``class_names``, int64 (len(subset),).

    Raises:
        ValueError: the model does not know one of them, or one stands there twice.
    """
    places = {name: place for place, name in enumerate(class_names)}
    absent = [name for name in subset if name not in places]
    if absent:
        raise ValueError(
            f"class {absent[0]!r} and {len(absent) - 1} more of {len(subset)} are none of the model's "
            f"{len(class_names)} classes, {class_names[0]!r} .. {class_names[-1]!r}"
        )
    if len(set(subset)) < len(subset) or len(places) < len(class_names):
        raise ValueError("class names must be different from each other")
    return np.array([places[name] for name in subset], np.int64)


def subset_answers(logits: ArrayLike, columns: ArrayLike) -> np.ndarray:
    """The class of the highest logit among ``columns``, int64 (N,), of equal logits the earlier column.

    Args:
        logits: (N, K) of all classes.
        columns: classes that can be the answer, such as `subset_columns` gives.

    Raises:
        ValueError: logits are not (N, K), or hold NaN or an infinity.
    """
    columns = np.asarray(columns)
    return columns[_finite(logits)[:, columns].argmax(axis=1)]


def outlier_scores(logits: ArrayLike, columns: ArrayLike) -> np.ndarray:
    """How much an example looks like none of the classes ``columns``, float64 (N,) in [-1, 0).

    It is minus the highest probability, of a softmax over these classes alone (hendrycks/natural-adv-examples).

    Raises:
        ValueError: logits are not (N, K), or hold NaN or an infinity.
    """
    logits = _finite(logits)[:, np.asarray(columns)].astype(np.float64)
    return -1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def average_precision(positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function: sum of precision x gain in recall, in [0, 1].

    Examples of equal score count as found together, as scikit-learn's average_precision_score has it. A score that
    says nothing gives the share of positives.

    Args:
        positive: bool (N,), what should have the higher scores.
        scores: (N,).

    Raises:
        ValueError: shapes differ, a score is NaN, or nothing is positive.
    """
    positive, scores = np.asarray(positive, bool), np.asarray(scores, np.float64)
    if positive.ndim != 1 or positive.shape != scores.shape:
        raise ValueError(f"positive and scores must both be (N,), found {positive.shape} and {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN")
    if not positive.any():
        raise ValueError("nothing is positive; recall is undefined")
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found = np.cumsum(positive[order])[last_of_equals]
    precision = found / (last_of_equals + 1)
    gained = np.diff(found, prepend=0) / positive.sum()
    return float(precision @ gained)


def outlier_aupr(inliers: ArrayLike, outliers: ArrayLike) -> float:
    """ImageNet-O's figure: `average_precision` of telling ``outliers`` from ``inliers``.

    Args:
        inliers: `outlier_scores` (N,) of ImageNet's validation pictures of the 200 classes.
        outliers: those (M,) of ImageNet-O; chance is M / (N + M), 2,000 of 12,000.
    """
    inliers, outliers = np.asarray(inliers), np.asarray(outliers)
    return average_precision(np.arange(len(outliers) + len(inliers)) < len(outliers), np.append(outliers, inliers))


class CorruptionScores(NamedTuple):
    """ImageNet-C in the figures of Table 6.

    Attributes:
        by_severity: accuracy at each severity, mean over the corruptions, (5,).
        accuracy: mean of them; Table 2's figure.
        errors: mean error over the severities relative to AlexNet's, by corruption.
        mce: mean corruption error, the mean of ``errors``: 1 is as bad as AlexNet, less is better.
    """

    by_severity: np.ndarray
    accuracy: float
    errors: dict[str, float]
    mce: float


def corruption_scores(accuracies: Mapping[str, Sequence[float]]) -> CorruptionScores:
    """Summary of the accuracies at severities 1 to 5 of every corruption in `ALEXNET_ERRORS`.

    `EXTRA_CORRUPTIONS` may be among them and are left out, as everywhere in the literature.

    Raises:
        ValueError: a corruption is missing or unknown, or has not 5 accuracies in [0, 1]: a mean over fewer would pass
            for the whole.
    """
    for name in ALEXNET_ERRORS:
        if name not in accuracies:
            raise ValueError(f"{name}: found no accuracies; all {len(ALEXNET_ERRORS)} corruptions must be there")
    for name, values in accuracies.items():
        if name not in (known := (*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS)):
            raise ValueError(f"{name}: no such corruption, known are {', '.join(known)}")
        if np.shape(values) != (SEVERITIES,) or not all(0 <= value <= 1 for value in values):
            raise ValueError(f"{name}: found the accuracies {list(values)}, must be {SEVERITIES} shares in [0, 1]")
    table = np.array([accuracies[name] for name in ALEXNET_ERRORS], np.float64)  # (15, 5)
    errors = (1 - table.mean(axis=1)) / np.array(list(ALEXNET_ERRORS.values()))
    by_name = dict(zip(ALEXNET_ERRORS, errors.tolist(), strict=True))
    return CorruptionScores(table.mean(axis=0), float(table.mean()), by_name, float(errors.mean()))


def feature_deviation(clean: ArrayLike, corrupted: ArrayLike) -> np.ndarray:
    """How far corruption moves an image's feature: |F(x) - F(x_c)| / |F(x)|, float64 (N,) (appendix A.1, Fig. 4).

    Args:
        clean, corrupted: features (N, D) of the same images in the same order.

    Raises:
        ValueError: shapes differ, or a clean feature is zero, which nothing can be related to.
    """
    clean, corrupted = np.asarray(clean, np.float64), np.asarray(corrupted, np.float64)
    if clean.ndim != 2 or clean.shape != corrupted.shape:
        raise ValueError(f"features must both be (N, D), found {clean.shape} and {corrupted.shape}")
    lengths = np.linalg.norm(clean, axis=1)
    if not (lengths > 0).all():
        raise ValueError(f"{(~(lengths > 0)).sum()} of {len(lengths)} clean features are zero or NaN")
    return np.linalg.norm(clean - corrupted, axis=1) / lengths


def _finite(logits: ArrayLike) -> np.ndarray:
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise ValueError(f"logits must be (N, K), found shape {logits.shape}")
    if bad := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise ValueError(f"{bad} of {len(logits)} rows of logits hold NaN or infinity")
    return logits
