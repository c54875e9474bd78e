"""Results of an evaluation as Markdown and as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lookupvivit.camera_motion.classes import CLASS_NAMES
from lookupvivit.camera_motion.evaluation import Result
from lookupvivit.evaluation.metrics import class_scores, wilson_interval
from lookupvivit.sizes import format_size
from lookupvivit.visualization.confusion_figure import confusion_figure


def to_markdown(results: Sequence[Result], machine: str) -> str:
    """Tables: accuracy of every result, accuracy per class, and the confusion matrix of each set at the own size.

    Args:
        results: at least one.
        machine: where they were computed.
    """
    lines = ["| videos | model | compressed size | number | top-1 % | 95 % interval |", _rule(6)]
    for result in results:
        correct, total = int(result.matrix.trace()), int(result.matrix.sum())
        low, high = wilson_interval(correct, total)
        cells = [result.videos.title, result.run, _size(result), str(total), f"{100 * correct / total:.1f}"]
        lines.append(_row([*cells, f"{100 * low:.1f} to {100 * high:.1f}"]))
    shown = at_first_size(results)
    lines += ["", _row(["top-1 % per class", *(_name(result) for result in shown)]), _rule(len(shown) + 1)]
    scores = [class_scores(result.matrix, CLASS_NAMES)["class_top1"] for result in shown]
    for name in CLASS_NAMES:
        lines.append(_row([name, *(f"{score[name]['top1']:.0f}" if name in score else "-" for score in scores)]))
    for result in shown:
        lines += ["", f"Confusions, {_name(result)} (row: true class, column: predicted class):", ""]
        lines += _confusions(result.matrix)
    return "\n".join([*lines, "", f"{machine}.", ""])


def at_first_size(results: Sequence[Result]) -> list[Result]:
    """The first result of each set and model."""
    first: dict[tuple[str, str], Result] = {}
    for result in results:
        first.setdefault((result.videos.name, result.run), result)
    return list(first.values())


def to_figure(results: Sequence[Result]) -> np.ndarray:
    """The confusion matrices of `at_first_size` side by side, uint8 (height, width, 3)."""
    figures = [confusion_figure(result.matrix, CLASS_NAMES, _name(result)) for result in at_first_size(results)]
    return np.concatenate(figures, axis=1)


def _name(result: Result) -> str:
    return f"{result.run}: {result.videos.name}"


def _size(result: Result) -> str:
    return format_size(result.compressed_size) if result.compressed_size else "own"


def _confusions(matrix: np.ndarray) -> list[str]:
    rows = [_row(["", *CLASS_NAMES]), _rule(len(CLASS_NAMES) + 1)]
    for name, counts in zip(CLASS_NAMES, matrix.tolist(), strict=True):
        if any(counts):
            rows.append(_row([name, *(str(count) if count else "" for count in counts)]))
    return rows


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
