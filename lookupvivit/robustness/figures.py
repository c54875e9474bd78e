"""Fig. 4 of the paper: how far corruptions move features, as a density and over the severities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lookupvivit.visualization.canvas import PALETTE, add_axes, new_figure, render

BINS = 120


def deviation_curves(deviations: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What Fig. 4 draws of one model: the density at the highest severity, and the mean at each severity.

    Args:
        deviations: (C, S, N) of C corruptions at S severities of N images, `evaluation.robustness.feature_deviation`.
        edges: (B + 1,) bounds of the bins of the density, ascending.

    Returns:
        Density (B,) over all corruptions, of integral 1 where the bins hold everything; means (S,).
    """
    if deviations.ndim != 3 or not deviations.size:
        raise ValueError(f"deviations must be (corruptions, severities, images), found shape {deviations.shape}")
    worst = deviations[:, -1].ravel()
    counts, _ = np.histogram(worst, edges)
    return counts / (len(worst) * np.diff(edges)), deviations.mean(axis=(0, 2))


def deviation_picture(models: Mapping[str, np.ndarray]) -> np.ndarray:
    """Both plots of Fig. 4 side by side, uint8 (height, width, 3).

    Args:
        models: name to deviations (C, S, N), of at most 6 models; the same corruptions and severities for all, as
            their curves are compared.
    """
    if not 1 <= len(models) <= len(PALETTE):
        raise ValueError(f"1 to {len(PALETTE)} models can be told apart, found {len(models)}")
    if len({values.shape[:2] for values in models.values()}) > 1:
        shapes = {name: values.shape[:2] for name, values in models.items()}
        raise ValueError(f"models must have the same corruptions and severities, found {shapes}")
    edges = np.linspace(0, max(values[:, -1].max() for values in models.values()) or 1.0, BINS + 1)
    figure = new_figure(1140, 460)
    density, means = add_axes(figure, 70, 40, 460, 350), add_axes(figure, 640, 40, 460, 350)
    for (name, values), colour in zip(models.items(), PALETTE[: len(models)], strict=True):
        heights, by_severity = deviation_curves(values, edges)
        density.stairs(heights, edges, color=colour, fill=True, alpha=0.25)
        density.stairs(heights, edges, color=colour, label=name, linewidth=1.5)
        means.plot(range(1, len(by_severity) + 1), by_severity, color=colour, label=name, marker="o")
    severities = len(by_severity)
    density.set(
        title=f"Severity {severities}, all corruptions", xlabel="normalised feature deviation", ylabel="density"
    )
    means.set(title="Mean over all corruptions", xlabel="severity", ylabel="mean normalised feature deviation")
    means.set_xticks(range(1, severities + 1))
    for axes in (density, means):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    return render(figure)
