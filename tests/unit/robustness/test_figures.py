"""Feature deviations: curves against hand computation and a known distribution, and what the figure contains."""

import numpy as np
import pytest

from lookupvivit.robustness.figures import deviation_curves, deviation_figure, deviation_plots


def test_curves_equal_hand_computation():
    deviations = np.zeros((2, 3, 4))
    deviations[0] = [[0.0, 0, 0, 0], [0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.3, 0.3]]
    deviations[1] = [[0.2, 0, 0, 0.2], [0.3, 0.3, 0.3, 0.3], [0.1, 0.5, 0.5, 0.5]]
    density, means = deviation_curves(deviations, np.array([0.0, 0.2, 0.4, 0.8]))
    # 3, 2 and 3 of the 8 values at the highest severity, divided by the bin widths
    assert density.tolist() == pytest.approx([3 / 8 / 0.2, 2 / 8 / 0.2, 3 / 8 / 0.4])
    assert means.tolist() == pytest.approx([0.05, 0.2, (0.8 + 1.6) / 8])


def test_the_density_is_that_of_the_highest_severity_and_integrates_to_one():
    rng = np.random.default_rng(0)
    deviations = np.abs(rng.normal(0.5, 0.1, (15, 5, 400)))
    deviations[:, :4] = 7.0  # lower severities must not appear
    edges = np.linspace(0, 1.2, 40)
    density, _ = deviation_curves(deviations, edges)
    assert density @ np.diff(edges) == pytest.approx(1)
    centres = (edges[1:] + edges[:-1]) / 2
    normal = np.exp(-((centres - 0.5) ** 2) / (2 * 0.1**2)) / (0.1 * np.sqrt(2 * np.pi))
    assert np.abs(density - normal).max() < 0.35


def test_the_figure_plots_the_curves_of_every_model_with_labels():
    rng = np.random.default_rng(0)
    models = {f"model {i}": rng.random((15, 5, 50)) * (1 + i) for i in range(3)}
    density, means = deviation_plots(models).axes
    for axes in (density, means):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(models)
        assert axes.get_title() and axes.get_xlabel() and axes.get_ylabel()
    lines = means.get_lines()
    histograms = [patch.get_data() for patch in density.patches if patch.get_label() in models]
    assert len(lines) == len(histograms) == 3 and len({line.get_color() for line in lines}) == 3
    for deviations, line, histogram in zip(models.values(), lines, histograms, strict=True):
        assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]
        assert line.get_ydata() == pytest.approx(deviations.mean(axis=(0, 2)))
        expected, _ = deviation_curves(deviations, histogram.edges)
        assert histogram.values == pytest.approx(expected)
    assert histograms[0].edges[-1] == pytest.approx(max(deviations[:, -1].max() for deviations in models.values()))


@pytest.mark.parametrize("deviations", [np.zeros((1, 5, 3)), np.ones((2, 1, 1))], ids=["all zero", "one severity"])
def test_the_figure_is_an_rgb_image(deviations):
    figure = deviation_figure({"model": deviations})
    assert figure.dtype == np.uint8 and figure.ndim == 3 and figure.shape[2] == 3
    assert (figure != 255).any()


def test_invalid_arrays_raise():
    with pytest.raises(ValueError, match=r"^deviations: found shape \(5, 3\)"):
        deviation_curves(np.zeros((5, 3)), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"^models: found .*14, 5"):
        deviation_figure({"a": np.ones((15, 5, 3)), "b": np.ones((14, 5, 3))})
    with pytest.raises(ValueError, match=r"^models: found 0"):
        deviation_figure({})
