"""Classification metrics against scikit-learn and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from sklearn import metrics as sklearn

from lookupvivit.evaluation.metrics import (
    bootstrap_interval,
    confusion_matrix,
    mean_class_accuracy,
    top_k_correct,
    wilson_interval,
)


@st.composite
def logits_and_labels(draw):
    """Logits with many ties, and labels."""
    count, classes = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (count, classes)).astype(np.float32), rng.integers(0, classes, count)


@given(logits_and_labels(), st.integers(1, 10))
def test_top_k_is_membership_in_a_stable_descending_sort(case, k):
    logits, labels = case
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    assert top_k_correct(logits, labels, k).tolist() == (order == labels[:, None]).any(axis=1).tolist()


def test_top_k_agrees_with_sklearn_without_ties():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 7)), rng.integers(0, 7, 200)
    for k in range(1, 7):
        expected = sklearn.top_k_accuracy_score(labels, logits, k=k, labels=range(7), normalize=False)
        assert top_k_correct(logits, labels, k).sum() == expected


def test_equal_logits_are_not_all_correct():
    labels = np.arange(10)
    assert top_k_correct(np.zeros((10, 10)), labels, 1).sum() == 1
    assert top_k_correct(np.zeros((10, 10)), labels, 5).sum() == 5


@given(logits_and_labels())
def test_confusion_matrix_and_mean_class_accuracy_agree_with_sklearn(case):
    logits, labels = case
    classes, guesses = logits.shape[1], logits.argmax(axis=1)
    matrix = confusion_matrix(labels, guesses, classes)
    assert (matrix == sklearn.confusion_matrix(labels, guesses, labels=range(classes))).all()
    recall = sklearn.recall_score(labels, guesses, labels=np.unique(labels), average="macro", zero_division=0)
    assert mean_class_accuracy(matrix) == pytest.approx(recall)


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_agrees_with_scipy(counts):
    correct, total = counts
    for confidence in (0.5, 0.95, 0.999):
        expected = binomtest(correct, total).proportion_ci(confidence, method="wilson")
        assert wilson_interval(correct, total, confidence) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k_correct([[0.0, float("nan")]], [0], 1), "logits: .*NaN in 1 of 1"),
        (lambda: top_k_correct([[0.0, 1.0]], [2], 1), "labels: found 2"),
        (lambda: top_k_correct([[0.0, 1.0]], [-1], 1), "labels: found -1"),
        (lambda: top_k_correct([[0.0, 1.0]], [0.5], 1), "labels: found float64"),
        (lambda: top_k_correct([[0.0, 1.0]], [0], 0), "k: found 0"),
        (lambda: top_k_correct([[0.0, 1.0]], [0, 1], 1), "labels: found 2, expected 1"),
        (lambda: confusion_matrix([0, 1], [0], 2), "predictions: found 1, expected 2"),
        (lambda: wilson_interval(0, 0), "0 of 0"),
        (lambda: wilson_interval(3, 2), "3 of 2"),
        (lambda: mean_class_accuracy(np.zeros((3, 3))), "matrix: found no examples"),
    ],
)
def test_invalid_arguments_are_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bootstrap_interval_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=(60, 2, 3))
    low, high = bootstrap_interval(values)
    expected = bootstrap([values], np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    width = expected.high - expected.low
    np.testing.assert_array_less(abs(low - expected.low), 0.05 * width)
    np.testing.assert_array_less(abs(high - expected.high), 0.05 * width)
