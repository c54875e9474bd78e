"""Predictions as text, as JSON, as rows of a CSV file and as a figure."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_pipelines.io.listing import unit_of
from data_pipelines.io.text import one_line
from lookupvivit.evaluation.prediction import Prediction, top_classes
from lookupvivit.visualization.time_format import format_time

MAX_SCENES = 12  # in the text
MAX_SUMMARY_CLASSES = 5


def as_text(prediction: Prediction, count: int) -> str:
    """The ``count`` most probable classes, one per line, and the scenes of a long video."""
    lines = [f"{prediction.path}  ({_duration(prediction)})"]
    if prediction.has_timeline:
        lines[0] += f"  mean over time, from {prediction.num_views} clips"
    lines += [f"  {100 * probability:5.1f} %  {name}" for name, probability in prediction.top(count)]
    scenes, tenths = prediction.scenes(), prediction.seconds < 60
    for scene in scenes[:MAX_SCENES]:
        span = f"{format_time(scene.start, tenths)} - {format_time(scene.end, tenths)}"
        lines.append(f"    {span:>17}  {scene.class_name} ({100 * scene.probability:.0f} %)")
    if len(scenes) > MAX_SCENES:
        lines.append(f"    ... {len(scenes) - MAX_SCENES} more")
    return "\n".join(map(one_line, lines))


def as_json(prediction: Prediction, count: int, logits: bool = False) -> dict[str, Any]:
    """Path, duration and the ``count`` most probable classes; for a long video also of each clip.

    Args:
        logits: also the mean logits of all classes, by name.
    """
    report: dict[str, Any] = {
        "path": prediction.path,
        "seconds": round(prediction.seconds, 3),
        "views": prediction.num_views,
        "top": _top_as_json(prediction, prediction.probabilities, count),
    }
    if logits:
        report["logits"] = prediction.logits.tolist()
    if prediction.has_timeline:
        clips = zip(prediction.starts.tolist(), prediction.ends.tolist(), prediction.timeline, strict=True)
        report["timeline"] = [
            {"start": round(start, 3), "end": round(end, 3), "top": _top_as_json(prediction, probabilities, count)}
            for start, end, probabilities in clips
        ]
    return report


def as_csv(videos: Iterable[dict[str, Any]], class_names: Sequence[str], count: int, logits: bool = False) -> str:
    """One row per file: path, error, seconds, and the most probable classes; ``logits`` adds a column per class.

    Args:
        videos: results of `as_json`, or ``path`` and ``error`` of a file that could not be read.
        class_names: K names.
        count: the number of most probable classes.
    """
    ranks = range(1, min(count, len(class_names)) + 1)
    columns = ["path", "error", "seconds", *(f"{key}_{rank}" for rank in ranks for key in ("class", "probability"))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(f"logit: {name}" for name in class_names if logits)])
    for video in videos:
        row = [video["path"], video.get("error", ""), video.get("seconds", "")]
        row += [value for entry in video.get("top", ()) for value in (entry["class"], entry["probability"])]
        row += [""] * (len(columns) - len(row)) + (video.get("logits", [""] * len(class_names)) if logits else [])
        writer.writerow(row)
    return text.getvalue()


def summary(videos: Sequence[dict[str, Any]], seconds: float) -> str:
    """One line about all files: how many, how fast, and the most frequent answers.

    Args:
        videos: as in `as_csv`.
    """
    answers = Counter(video["top"][0]["class"] for video in videos if "top" in video)
    shown = [f"{name} {number}" for name, number in answers.most_common(MAX_SUMMARY_CLASSES)]
    if len(answers) > MAX_SUMMARY_CLASSES:
        shown.append(f"{len(answers) - MAX_SUMMARY_CLASSES} other classes")
    text = f"{answers.total()} of {len(videos)} files predicted in {seconds:.1f} s"
    return one_line(f"{text}: {', '.join(shown)}" if shown else text)


def as_figure(prediction: Prediction, count: int, title: str, source: str) -> np.ndarray:
    """Frames and the ``count`` most probable classes, uint8 (height, width, 3).

    Args:
        prediction: of one video.
        count: the number of classes.
        title: such as the file name.
        source: the run that the model is from.
    """
    from lookupvivit.visualization.prediction_figure import Timeline, prediction_figure  # imports matplotlib

    shown = top_classes(prediction.probabilities, count)
    timeline, basis = None, f"{prediction.num_views} views of the {unit_of(prediction.path)}"
    if prediction.has_timeline:
        probabilities = prediction.timeline[:, shown]
        timeline = Timeline(prediction.seconds, prediction.starts, prediction.ends, probabilities)
        basis = f"probability over time (0 to 100 %), from {prediction.num_views} clips"
    return prediction_figure(
        prediction.frames,
        [prediction.class_names[label] for label in shown],
        prediction.probabilities[shown],
        timeline,
        title,
        caption=f"{_duration(prediction)}  |  {source}  |  {basis}",
    )


def _duration(prediction: Prediction) -> str:
    if unit_of(prediction.path) == "image":
        return "image"
    return f"{prediction.seconds:.3g} s" if prediction.seconds < 60 else format_time(prediction.seconds)


def _top_as_json(prediction: Prediction, probabilities: np.ndarray, count: int) -> list[dict[str, Any]]:
    return [
        {"class": prediction.class_names[label], "probability": round(float(probabilities[label]), 6)}
        for label in top_classes(probabilities, count)
    ]
