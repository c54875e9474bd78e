"""Average precision, against scikit-learn and against its definition."""

import numpy as np
import pytest

from lookupvivit.evaluation.multi_label import (
    average_precision,
    class_average_precisions,
    lowest_text,
    multi_label_scores,
)


def by_definition(scores, positive):
    """The mean over the examples of the class of the precision among all with at least their score."""
    return np.mean([positive[scores >= score].mean() for score in scores[positive]])


@pytest.mark.parametrize("levels", [3, 10**6])  # many ties, and hardly any
def test_average_precision(levels):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(levels, size=30) / levels - 0.5
        positive = rng.random(30) < rng.uniform(0.1, 0.9)
        positive[0] = True
        value = average_precision(scores, positive)
        assert value == pytest.approx(by_definition(scores, positive), abs=1e-12)
        assert value == pytest.approx(metrics.average_precision_score(positive, scores), abs=1e-12)


def test_classes_without_videos_do_not_count():
    scores = np.array([[2.0, 1, 0], [1.0, 2, 0], [0.0, 3, 0]])
    membership = np.array([[True, True, False], [False, False, False], [True, False, False]])
    assert class_average_precisions(scores, membership, "abc") == {
        "class_ap": {
            "a": {"videos": 2, "ap": pytest.approx(100 * 5 / 6)},
            "b": {"videos": 1, "ap": pytest.approx(100 / 3)},
        }
    }
    assert lowest_text(scores, membership, "abc") == "lowest AP: b 33.3 %, a 83.3 %"
    result = multi_label_scores(scores, membership)
    assert result == {"mAP": pytest.approx(50 * (5 / 6 + 1 / 3)), "classes_with_videos": 2}
    with pytest.raises(ValueError, match="labels: found none"):
        multi_label_scores(scores, np.zeros((3, 3), bool))
