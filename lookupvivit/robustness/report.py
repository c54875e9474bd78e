"""The report of a robustness test: robustness.json, and text tables in the form of the paper's Tables 2 and 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.io.errors import DataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from lookupvivit.robustness.metrics import SEVERITIES

# Key of the number of images; robustness.json files of version 0.1 have it too.
NUM_IMAGES = "pictures"
TITLES = {
    "imagenet_c": "ImageNet-C",
    "imagenet_o": "ImageNet-O",
    "imagenet_r": "ImageNet-R",
    "imagenet_a": "ImageNet-A",
}
TABLE_2_METRICS = {"imagenet_c": "accuracy", "imagenet_o": "aupr", "imagenet_r": "accuracy", "imagenet_a": "accuracy"}
PUBLISHED_SIZES = {"imagenet_a": 7_500, "imagenet_r": 30_000, "imagenet_o": 2_000}  # images
COLUMN_WIDTH_2, COLUMN_WIDTH_6 = 13, 11  # characters, of Tables 2 and 6

Report = dict[str, dict[str, Any]]  # results of `RobustnessSuite` by dataset


def load_report(file: Path, fingerprint: str) -> Report:
    """The report of earlier calls for the same weights; empty if there is none.

    Args:
        file: robustness.json.
        fingerprint: of `RobustnessSuite`.
    """
    try:
        content = read_json(file, dict, max_bytes=SMALL_BYTES)
    except DataError:
        return {}
    if content.get("weights") != fingerprint:
        return {}
    return {name: content[name] for name in TITLES if name in content}


def tables(model: str, report: Report) -> str:
    """Table 2, and Table 6 with a row per corruption; in per cent.

    Missing datasets and missing parts of ImageNet-C are reported as such and are in no average.

    Args:
        model: label of the rows.
        report: results by dataset.
    """
    width = max(len(model), 20)
    values = [
        _percent(report[name].get(metric)) if name in report else "not given"
        for name, metric in TABLE_2_METRICS.items()
    ]
    lines = [
        "",
        _row("Table 2", width, list(TITLES.values()), COLUMN_WIDTH_2),
        _row(model, width, values, COLUMN_WIDTH_2),
        "",
        "accuracy in per cent; for ImageNet-O the area under the precision-recall curve",
    ]
    for name, published in PUBLISHED_SIZES.items():
        num_images = report[name][NUM_IMAGES] if name in report else published
        if num_images != published:
            lines.append(f"NOTE: {TITLES[name]}: found {num_images:,} images, published are {published:,}")
    if "imagenet_c" in report:
        lines += ["", *_corruption_table(model, width, report["imagenet_c"])]
    return "\n".join([*lines, ""])


def _corruption_table(model: str, width: int, report: dict[str, Any]) -> list[str]:
    """Table 6, a row per corruption, the means of Fig. 4, and what is missing."""
    severities = [f"sev{level}" for level in range(1, SEVERITIES + 1)]
    averages = [*report.get("by_severity", [None] * SEVERITIES), report.get("accuracy"), report.get("mce")]
    lines = [
        _row("Table 6", width, [*severities, "Avg.", "mCE"], COLUMN_WIDTH_6),
        _row(model, width, map(_percent, averages), COLUMN_WIDTH_6),
    ]
    errors = report.get("errors", {})
    for name, accuracies in report["accuracies"].items():
        cells = [*accuracies, _mean(accuracies), errors.get(name)]
        lines.append(_row(f"  {name}", width, map(_percent, cells), COLUMN_WIDTH_6))
    if "deviations" in report:
        means = [_mean(column) for column in zip(*report["deviations"].values(), strict=True)]
        texts = ["not found" if mean is None else f"{mean:.3f}" for mean in means]
        lines += ["", _row("Fig. 4b", width, severities, COLUMN_WIDTH_6)]
        lines.append(_row("feature deviation", width, texts, COLUMN_WIDTH_6))
    lines += _notes(report)
    return lines


def _notes(report: dict[str, Any]) -> list[str]:
    notes = []
    missing = []
    for name, accuracies in report["accuracies"].items():
        levels = [str(level) for level, accuracy in enumerate(accuracies, start=1) if accuracy is None]
        if levels:
            missing.append(f"{name} {', '.join(levels)}")
    if missing:
        notes.append(f"NOT FOUND: {'; '.join(missing)}. Averages that need them are not computed")
    if report["other_folders"]:
        notes.append(f"NOTE: folders of other names, ignored: {', '.join(report['other_folders'])}")
    return notes


def _row(label: str, width: int, cells: Any, cell_width: int) -> str:
    return f"{label:{width}}" + "".join(f"{cell:>{cell_width}}" for cell in cells)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if len(present) == len(values) else None


def _percent(value: float | None) -> str:
    """A value in [0, 1] in per cent, as the paper prints it."""
    return "not found" if value is None else f"{100 * value:.1f}"
