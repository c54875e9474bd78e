"""Robustness metrics against hand computation, scikit-learn and the paper's tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import average_precision_score

from data_pipelines.datasets.class_names import class_names
from lookupvivit.robustness.metrics import (
    ALEXNET_ERRORS,
    EXTRA_CORRUPTIONS,
    average_precision,
    corruption_scores,
    feature_deviation,
    outlier_aupr,
    outlier_scores,
    subset_columns,
    subset_predictions,
)

# Table 6: accuracy at severities 1 to 5, their mean, and mCE; per cent.
TABLE_6 = {
    "ViT-B": (70.3, 64.1, 59.0, 49.9, 38.9, 56.4, 55.3),
    "TokenLearner-B": (69.0, 62.8, 57.9, 49.5, 39.5, 55.7, 56.3),
    "LookupViT-B 5x5": (70.6, 64.2, 58.6, 49.7, 38.8, 56.4, 55.3),
    "LookupViT-B 7x7": (72.0, 65.8, 60.7, 52.0, 41.6, 58.4, 52.8),
    "LookupViT-B 10x10": (72.9, 67.1, 62.2, 53.9, 43.6, 59.9, 50.8),
    "ViT-L": (68.3, 62.4, 57.3, 49.2, 39.3, 55.3, 54.7),
    "TokenLearner-L": (69.6, 63.4, 58.0, 48.9, 38.2, 55.6, 56.4),
    "LookupViT-L 5x5": (71.4, 65.5, 60.6, 52.3, 42.3, 58.4, 52.9),
    "LookupViT-L 7x7": (72.1, 66.4, 61.8, 53.8, 44.2, 59.7, 51.2),
    "LookupViT-L 10x10": (72.4, 67.0, 62.7, 54.6, 45.2, 60.4, 50.4),
}


def test_predictions_are_restricted_to_the_200_classes():
    imagenet, subset = class_names("imagenet"), class_names("imagenet_a")
    columns = subset_columns(imagenet, subset)
    assert [imagenet[column] for column in columns] == list(subset)
    labels = columns[np.array([0, 3, 150, 199])]
    others = np.setdiff1d(np.arange(1000), columns)
    logits = np.zeros((4, 1000))
    logits[:, others] = 10.0  # ignored, although higher than all others
    logits[np.arange(4), labels] = (1, 1, 1, 0)
    logits[3, columns[7]] = 0.5  # a wrong prediction
    assert subset_predictions(logits, columns).tolist() == [*labels[:3].tolist(), columns[7]]
    assert (logits.argmax(axis=1) == labels).sum() == 0
    reordered = np.random.default_rng(0).permutation(1000)  # a model with another order of classes
    names = [imagenet[i] for i in reordered]
    predictions = subset_predictions(logits[:, reordered], subset_columns(names, subset))
    assert reordered[predictions].tolist() == [*labels[:3].tolist(), columns[7]]
    with pytest.raises(ValueError, match=r"'n01498041' and 199 more of 200 .* 400"):
        subset_columns(class_names("kinetics400"), subset)


def test_outlier_scores_and_aupr_equal_hand_computation():
    logits = np.log([[1.0, 3.0, 96.0], [1.0, 1.0, 98.0], [4.0, 1.0, 95.0]])
    assert outlier_scores(logits, [0, 1]) == pytest.approx([-0.75, -0.5, -0.8])  # without the third class
    # Outliers have scores -0.75 and -0.5, inliers -0.6 and -0.8; ranked: outlier, inlier, outlier, inlier.
    inliers, outliers = np.log([[2.0, 3.0], [4.0, 1.0]]), np.log([[1.0, 3.0], [1.0, 1.0]])
    inliers, outliers = (outlier_scores(some, [0, 1]) for some in (inliers, outliers))
    assert outlier_aupr(inliers, outliers) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    constant = (outlier_scores(np.zeros((count, 5)), [0, 2, 4]) for count in (10_000, 2_000))
    assert outlier_aupr(*constant) == pytest.approx(2_000 / 12_000)
    shifted = outlier_scores(logits + 1e4, [0, 1])
    assert shifted == pytest.approx([-0.75, -0.5, -0.8])
    random = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32) * 9
    columns = [1, 5, 20, 29]
    assert outlier_scores(random, columns) == pytest.approx(-softmax(random[:, columns], axis=1).max(axis=1), rel=1e-5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=60))
def test_average_precision_equals_scikit_learn(rows):
    positive, scores = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    if positive.any():
        assert average_precision(positive, scores) == pytest.approx(average_precision_score(positive, scores))
    else:
        with pytest.raises(ValueError, match="no positive example"):
            average_precision(positive, scores)


def test_the_mce_of_alexnet_is_100_per_cent():
    scores = corruption_scores({name: [1 - error] * 5 for name, error in ALEXNET_ERRORS.items()})
    assert 100 * scores.mce == pytest.approx(100)
    assert scores.errors == pytest.approx(dict.fromkeys(ALEXNET_ERRORS, 1.0))
    assert len(ALEXNET_ERRORS) == 15 and 1 - scores.accuracy == pytest.approx(0.788993, abs=5e-7)


def test_corruption_scores_equal_hand_computation():
    accuracies = {name: [0.9, 0.8, 0.7, 0.6, 0.5] for name in ALEXNET_ERRORS}
    accuracies["fog"] = [0.4, 0.3, 0.2, 0.1, 0.0]
    scores = corruption_scores({**accuracies, "spatter": [0.0] * 5})  # extra corruptions are ignored
    assert scores.by_severity == pytest.approx([(14 * top + top - 0.5) / 15 for top in (0.9, 0.8, 0.7, 0.6, 0.5)])
    assert scores.accuracy == pytest.approx((14 * 0.7 + 0.2) / 15)
    assert scores.errors["fog"] == pytest.approx(0.8 / 0.819324)
    assert scores.errors["snow"] == pytest.approx(0.3 / 0.866816)
    expected = (sum(0.3 / ALEXNET_ERRORS[name] for name in ALEXNET_ERRORS if name != "fog") + 0.8 / 0.819324) / 15
    assert scores.mce == pytest.approx(expected)
    assert not set(EXTRA_CORRUPTIONS) & set(ALEXNET_ERRORS)


@pytest.mark.parametrize("model", TABLE_6)
def test_the_mce_in_table_6_is_consistent_with_its_accuracies(model):
    *by_severity, mean, mce = TABLE_6[model]
    # The table has no accuracies of single corruptions. Assume that their errors are proportional to AlexNet's.
    hardness = np.mean(list(ALEXNET_ERRORS.values()))
    scores = corruption_scores(
        {name: 1 - (1 - np.array(by_severity) / 100) * error / hardness for name, error in ALEXNET_ERRORS.items()}
    )
    assert 100 * scores.by_severity == pytest.approx(by_severity)
    assert 100 * scores.accuracy == pytest.approx(mean, abs=0.05)
    if model == "ViT-L":  # the printed accuracies imply an mCE of about 56.7; probably a misprint
        assert 100 * scores.mce == pytest.approx(mce + 1.95, abs=0.01)
    else:
        assert 100 * scores.mce == pytest.approx(mce, abs=0.21)


def test_feature_deviation_equals_hand_computation():
    clean = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    corrupted = np.array([[3.0, 4.0], [0.0, -2.0], [1.0, 0.5]])
    assert feature_deviation(clean, corrupted).tolist() == [0.0, 2.0, 0.5]
    assert feature_deviation(7 * clean, 7 * corrupted) == pytest.approx([0.0, 2.0, 0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corruption_scores({"fog": [0.5] * 5}), "gaussian_noise: .* 15"),
        (lambda: corruption_scores({name: [0.5] * 4 for name in ALEXNET_ERRORS}), "gaussian_noise: .* 5 values"),
        (lambda: corruption_scores({name: [56.4] * 5 for name in ALEXNET_ERRORS}), "gaussian_noise: .* 5 values"),
        (lambda: corruption_scores(dict.fromkeys((*ALEXNET_ERRORS, "rain"), [0.5] * 5)), "rain: "),
        (lambda: outlier_scores([[0.0, np.nan]], [0]), "logits: 1 of 1"),
        (lambda: subset_predictions([[0.0, np.inf], [0.0, 1.0]], [0]), "logits: 1 of 2"),
        (lambda: average_precision([True, False], [0.0, np.nan]), "scores: 1 of 2"),
        (lambda: average_precision([True], [0.0, 1.0]), r"\(1,\) and \(2,\)"),
        (lambda: feature_deviation([[0.0, 0.0]], [[1.0, 0.0]]), "clean: 1 of 1"),
        (lambda: feature_deviation([[1.0, 0.0]], [[1.0]]), r"\(1, 2\) and \(1, 1\)"),
    ],
)
def test_invalid_input_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()
