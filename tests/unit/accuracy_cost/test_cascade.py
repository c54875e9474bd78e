"""The cascade against a loop over the videos."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lookupvivit.accuracy_cost.cascade import confidence, expected_cost, sweep, thinned


def by_loop(small, large, labels, threshold):
    """Videos passed on, and videos right in the end."""
    passed = correct = 0
    for cheap, dear, label in zip(small, large, labels, strict=True):
        sure = float(torch.softmax(torch.from_numpy(cheap).double(), 0).max())
        passed += sure < threshold
        correct += int((dear if sure < threshold else cheap).argmax()) == label
    return passed, correct


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5), st.booleans())
def test_every_threshold_does_what_a_loop_does(seed, videos, classes, tied):
    rng = np.random.default_rng(seed)
    small, large = rng.normal(size=(2, videos, classes)) * 3
    if tied:  # many videos of equal confidence, and equal logits
        small, large = small.round(), large.round()
    labels = rng.integers(classes, size=videos)
    found = sweep(small, large, labels)
    levels = np.unique(confidence(small))
    assert found.shares[0] == 0 and found.shares[-1] == 1 and (np.diff(found.shares) > 0).all()
    assert (np.diff(found.thresholds) > 0).all() and len(found.thresholds) == len(levels) + 1
    for step, (below, above) in enumerate(pairwise(levels), start=1):
        if above - below > 1e-9:  # clear of the last bit of a softmax
            passed, correct = by_loop(small, large, labels, (below + above) / 2)
            assert (passed, correct) == (round(found.shares[step] * videos), found.correct[step])
    assert found.correct[0] == (small.argmax(1) == labels).sum()
    assert found.correct[-1] == (large.argmax(1) == labels).sum()


def test_a_threshold_as_it_is_told_passes_on_the_told_share():
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(2, 200, 4))
    found = sweep(small, large, rng.integers(4, size=200))
    for threshold, share in zip(found.thresholds, found.shares, strict=True):
        assert (confidence(small) < threshold).mean() == share


def test_cost_is_the_mean_over_the_videos():
    asked = np.array([True, False, False, True, True])
    assert expected_cost(asked.mean(), 2.0, 7.0) == pytest.approx(np.mean([2.0 + 7.0 * a for a in asked]))


def test_thinning_keeps_both_ends_and_even_steps():
    rng = np.random.default_rng(1)
    whole = sweep(*rng.normal(size=(2, 1000, 3)), rng.integers(3, size=1000))
    few = thinned(whole, 11)
    np.testing.assert_allclose(few.shares, np.linspace(0, 1, 11), atol=1e-3)
    pairs = set(zip(whole.thresholds, whole.correct, strict=True))
    assert set(zip(few.thresholds, few.correct, strict=True)) <= pairs
    assert len(thinned(sweep([[0.0, 1.0]], [[1.0, 0.0]], [0]), 11).shares) == 2


def test_nan_is_no_confidence():
    with pytest.raises(ValueError, match="hold NaN"):
        sweep([[0.0, np.nan]], [[0.0, 1.0]], [0])
