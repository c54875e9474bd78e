"""The cascade, compared with a loop over the videos."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lookupvivit.accuracy_cost.cascade import confidence, expected_cost, sweep_thresholds


def loop_over_videos(small, large, labels, threshold):
    """The number of videos that go to the large size, and of videos that are classified correctly."""
    num_passed = num_correct = 0
    for small_logits, large_logits, label in zip(small, large, labels, strict=True):
        passed = float(torch.softmax(torch.from_numpy(small_logits).double(), 0).max()) < threshold
        num_passed += passed
        num_correct += int((large_logits if passed else small_logits).argmax()) == label
    return num_passed, num_correct


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5), st.booleans())
def test_every_threshold_equals_a_loop_over_the_videos(seed, num_videos, num_classes, tied):
    rng = np.random.default_rng(seed)
    small, large = rng.normal(size=(2, num_videos, num_classes)) * 3
    if tied:  # equal logits, and many videos of equal confidence
        small, large = small.round(), large.round()
    labels = rng.integers(num_classes, size=num_videos)
    cascade = sweep_thresholds(small, large, labels)
    levels = np.unique(confidence(small))
    assert cascade.shares[0] == 0 and cascade.shares[-1] == 1 and (np.diff(cascade.shares) > 0).all()
    assert (np.diff(cascade.thresholds) > 0).all() and len(cascade.thresholds) == len(levels) + 1
    for step, (below, above) in enumerate(pairwise(levels), start=1):
        if above - below > 1e-9:  # larger than rounding errors of the softmax
            num_passed, num_correct = loop_over_videos(small, large, labels, (below + above) / 2)
            assert (num_passed, num_correct) == (round(cascade.shares[step] * num_videos), cascade.correct[step])
    assert cascade.correct[0] == (small.argmax(1) == labels).sum()
    assert cascade.correct[-1] == (large.argmax(1) == labels).sum()


def test_each_threshold_selects_the_reported_share():
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(2, 200, 4))
    cascade = sweep_thresholds(small, large, rng.integers(4, size=200))
    for threshold, share in zip(cascade.thresholds, cascade.shares, strict=True):
        assert (confidence(small) < threshold).mean() == share


def test_the_expected_cost_is_the_mean_over_the_videos():
    passed = np.array([True, False, False, True, True])
    costs = [2.0 + 7.0 * flag for flag in passed]
    assert expected_cost(passed.mean(), 2.0, 7.0) == pytest.approx(np.mean(costs))


def test_thinning_keeps_both_ends_and_even_steps():
    rng = np.random.default_rng(1)
    cascade = sweep_thresholds(*rng.normal(size=(2, 1000, 3)), rng.integers(3, size=1000))
    thinned = cascade.thin(11)
    np.testing.assert_allclose(thinned.shares, np.linspace(0, 1, 11), atol=1e-3)
    pairs = set(zip(cascade.thresholds, cascade.correct, strict=True))
    assert set(zip(thinned.thresholds, thinned.correct, strict=True)) <= pairs
    assert len(sweep_thresholds([[0.0, 1.0]], [[1.0, 0.0]], [0]).thin(11).shares) == 2


def test_a_nan_logit_raises():
    with pytest.raises(ValueError, match="NaN"):
        sweep_thresholds([[0.0, np.nan]], [[0.0, 1.0]], [0])
