"""The few-shot probe, compared with scikit-learn and on real data."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from lookupvivit.probing.few_shot import L2, FewShotScore, RidgeProbe, choose_support_set, few_shot_scores


def problem(count, width, classes, seed=0):
    """One Gaussian per class; the last feature is constant."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = rng.normal(size=(classes, width))[labels] + rng.normal(size=(count, width)) * rng.uniform(0.1, 9, width)
    features[:, -1] = 3.0
    return features, labels


@pytest.mark.parametrize(("count", "width"), [(20, 64), (200, 16), (17, 16)])
def test_the_probe_equals_scikit_learns_ridge_regression(count, width):
    features, labels = problem(count, width, 5)
    test, _ = problem(50, width, 5, seed=1)
    probe = RidgeProbe.fit(features, labels, 5)
    scaler = StandardScaler().fit(features)
    scaler.scale_ = np.sqrt(scaler.var_) + 1e-5
    inputs, test_inputs = (
        np.hstack([scaler.transform(values), np.full((len(values), 1), 100.0)]) for values in (features, test)
    )
    ridge = Ridge(alpha=L2, fit_intercept=False, solver="svd").fit(inputs, 2.0 * np.eye(5)[labels] - 1)
    np.testing.assert_allclose(probe.weights, ridge.coef_.T, atol=1e-9)
    np.testing.assert_allclose(probe.scores(test), ridge.predict(test_inputs), atol=1e-6, rtol=0)
    assert np.isfinite(probe.scores(test)).all()


def test_scores_do_not_depend_on_scale_and_offset_of_a_feature():
    features, labels = problem(30, 8, 3)
    test, _ = problem(40, 8, 3, seed=1)
    scale, shift = np.geomspace(0.1, 1000, 8), np.linspace(-50, 50, 8)
    moved = RidgeProbe.fit(features * scale + shift, labels, 3).scores(test * scale + shift)
    # Only the constant that is added to the standard deviation is absolute.
    np.testing.assert_allclose(moved, RidgeProbe.fit(features, labels, 3).scores(test), atol=1e-3)


def test_support_sets_are_balanced_repeatable_and_nested():
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(7), 30))
    for shots in (1, 5, 25):
        chosen = choose_support_set(labels, 7, shots, seed=2)
        assert np.array_equal(labels[chosen], np.repeat(np.arange(7), shots))
        assert len(set(chosen.tolist())) == 7 * shots
        assert np.array_equal(chosen, choose_support_set(labels, 7, shots, seed=2))
    one, five, twenty_five = (set(choose_support_set(labels, 7, shots, 0).tolist()) for shots in (1, 5, 25))
    assert one <= five <= twenty_five
    assert five != set(choose_support_set(labels, 7, 5, 1).tolist())


def test_accuracy_on_digits_increases_with_the_shots():
    pixels, labels = load_digits(return_X_y=True)
    scores = few_shot_scores(pixels[:900], labels[:900], pixels[900:], labels[900:], 10)
    assert [score.shots for score in scores] == [1, 5, 25] and all(len(score.accuracies) == 3 for score in scores)
    one, five, twenty_five = (score.mean for score in scores)
    assert 0.35 < one < five < twenty_five and twenty_five > 0.8
    shuffled = np.random.default_rng(0).permutation(labels[:900])
    assert few_shot_scores(pixels[:900], shuffled, pixels[900:], labels[900:], 10, shots=(5,))[0].mean < 0.25


def test_mean_and_standard_deviation_equal_hand_computation():
    score = FewShotScore(5, (0.5, 0.6, 0.7))
    assert (score.mean, score.std) == pytest.approx((0.6, 0.1))
    assert FewShotScore(5, (0.5,)).std == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shots": (7,)}, r"^class 0: found 6 .* 7"),
        ({"num_classes": 6}, r"^class 5: found 0"),
        ({"test": np.zeros((3, 4))}, r"^test: found features \(3, 4\)"),
        ({"test_labels": np.zeros(2, int)}, r"labels \(2,\)"),
        ({"train": np.full((30, 8), np.nan)}, "^train: 30 of 30"),
    ],
)
def test_invalid_input_raises(change, message):
    features, labels = problem(30, 8, 5)
    valid = {"train": features, "train_labels": labels, "test": features, "test_labels": labels, "num_classes": 5}
    with pytest.raises(ValueError, match=message):
        few_shot_scores(**{**valid, "shots": (1,), **change})
    with pytest.raises(ValueError, match=r"^labels: found 0 to 4"):
        RidgeProbe.fit(features, labels, 3)
