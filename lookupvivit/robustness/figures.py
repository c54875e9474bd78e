"""The figure of feature deviations (paper, Fig. 4): their density, and their mean at each severity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lookupvivit.visualization.canvas import PALETTE, add_axes, new_figure, render

BINS = 120
WIDTH, HEIGHT = 1140, 460  # pixels
DENSITY_AXES = (70, 40, 460, 350)  # x, y, width and height from the top left, pixels
MEANS_AXES = (640, 40, 460, 350)


def deviation_curves(deviations: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curves of one model: the density at the highest severity, and the mean at each severity.

    Args:
        deviations: (C, S, N) for C corruptions at S severities of N images, of
            `lookupvivit.robustness.metrics.feature_deviation`.
        edges: (B + 1,) ascending bounds of the bins of the density.

    Returns:
        Density (B,) over all corruptions, with integral 1 if the bins cover all values; means (S,).

    Raises:
        ValueError: deviations of another shape, or none.
    """
    if deviations.ndim != 3 or not deviations.size:
        raise ValueError(f"deviations: found shape {deviations.shape}, expected (corruptions, severities, images)")
    at_highest_severity = deviations[:, -1].ravel()
    counts, _ = np.histogram(at_highest_severity, edges)
    density = counts / (len(at_highest_severity) * np.diff(edges))
    return density, deviations.mean(axis=(0, 2))


def deviation_plots(models: Mapping[str, np.ndarray]) -> Figure:
    """The two plots of Fig. 4 as a matplotlib figure; see `deviation_figure`."""
    if not 1 <= len(models) <= len(PALETTE):
        raise ValueError(f"models: found {len(models)}, expected 1 to {len(PALETTE)}, one per colour")
    shapes = {name: deviations.shape[:2] for name, deviations in models.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"models: found {shapes}, expected the same corruptions and severities for all")
    maximum = max(deviations[:, -1].max() for deviations in models.values()) or 1.0
    edges = np.linspace(0, maximum, BINS + 1)
    figure = new_figure(WIDTH, HEIGHT)
    density, means = add_axes(figure, *DENSITY_AXES), add_axes(figure, *MEANS_AXES)
    for (name, deviations), colour in zip(models.items(), PALETTE, strict=False):
        heights, by_severity = deviation_curves(deviations, edges)
        density.stairs(heights, edges, color=colour, fill=True, alpha=0.25)
        density.stairs(heights, edges, color=colour, label=name, linewidth=1.5)
        means.plot(range(1, len(by_severity) + 1), by_severity, color=colour, label=name, marker="o")
    _, num_severities = next(iter(shapes.values()))
    title = f"Severity {num_severities}, all corruptions"
    density.set(title=title, xlabel="normalised feature deviation", ylabel="density")
    means.set(title="Mean over all corruptions", xlabel="severity", ylabel="mean normalised feature deviation")
    means.set_xticks(range(1, num_severities + 1))
    for axes in (density, means):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return figure


def deviation_figure(models: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw both plots of Fig. 4 side by side, uint8 (height, width, 3).

    Args:
        models: name to deviations (C, S, N) of at most 6 models, with the same corruptions and severities.

    Raises:
        ValueError: no model, too many, or different corruptions or severities.
    """
    return render(deviation_plots(models))
