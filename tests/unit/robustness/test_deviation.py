import numpy as np
import pytest

from lookupvivit.robustness.figures import deviation_curves, deviation_picture
from lookupvivit.visualization.canvas import PALETTE


def test_curves_by_hand():
    deviations = np.zeros((2, 3, 4))
    deviations[0] = [[0.0, 0, 0, 0], [0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.3, 0.3]]
    deviations[1] = [[0.2, 0, 0, 0.2], [0.3, 0.3, 0.3, 0.3], [0.1, 0.5, 0.5, 0.5]]
    density, means = deviation_curves(deviations, np.array([0.0, 0.2, 0.4, 0.8]))
    assert density.tolist() == pytest.approx([3 / 8 / 0.2, 2 / 8 / 0.2, 3 / 8 / 0.4])
    assert means.tolist() == pytest.approx([0.05, 0.2, (0.8 + 1.6) / 8])


def test_density_is_that_of_the_worst_severity_and_integrates_to_one():
    rng = np.random.default_rng(0)
    deviations = np.abs(rng.normal(0.5, 0.1, (15, 5, 400)))
    deviations[:, :4] = 7.0  # nothing of the others is seen
    edges = np.linspace(0, 1.2, 40)
    density, _ = deviation_curves(deviations, edges)
    assert density @ np.diff(edges) == pytest.approx(1)
    centre = (edges[1:] + edges[:-1]) / 2
    normal = np.exp(-((centre - 0.5) ** 2) / (2 * 0.1**2)) / (0.1 * np.sqrt(2 * np.pi))
    assert np.abs(density - normal).max() < 0.35


def test_every_models_curves_are_in_the_picture():
    rng = np.random.default_rng(0)
    models = {f"model {i}": rng.random((15, 5, 50)) * (1 + i) for i in range(3)}
    picture = deviation_picture(models)
    assert picture.dtype == np.uint8 and picture.shape == (460, 1140, 3)
    for column in (slice(70, 530), slice(640, 1100)):
        for number, colour in enumerate(PALETTE):
            rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
            drawn = (np.abs(picture[:, column].astype(int) - rgb).max(axis=-1) < 12).sum()
            assert (drawn > 30) == (number < 3)
    deviation_picture({"all alike": np.zeros((1, 5, 3))})


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match=r"found shape \(5, 3\)"):
        deviation_curves(np.zeros((5, 3)), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="same corruptions and severities"):
        deviation_picture({"a": np.ones((15, 5, 3)), "b": np.ones((14, 5, 3))})
    with pytest.raises(ValueError, match="found 0"):
        deviation_picture({})
