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
from lookupvivit.evaluation.segments import Segment
from lookupvivit.visualization.time_format import format_time

MAX_SEGMENTS = 12  # in the text
MAX_SUMMARY_CLASSES = 5


def as_text(prediction: Prediction, count: int) -> str:
    """The ``count`` most probable classes, one per line, and the segments of a long video."""
    lines = [f"{prediction.path}  ({_duration(prediction)})"]
    if prediction.has_timeline:
        lines[0] += f"  mean over time, from {prediction.num_views} clips"
    lines += [f"  {100 * probability:5.1f} %  {name}" for name, probability in prediction.top(count)]
    segments = prediction.segments()
    lines += [f"    {segment_line(segment)}" for segment in segments[:MAX_SEGMENTS]]
    if len(segments) > MAX_SEGMENTS:
        lines.append(f"    ... {len(segments) - MAX_SEGMENTS} more")
    return "\n".join(map(one_line, lines))


def segment_line(segment: Segment) -> str:
    """Times, class and probability of a segment."""
    span = f"{format_time(segment.start, tenths=True)} - {format_time(segment.end, tenths=True)}"
    return f"{span:>17}  {segment.class_name} ({100 * segment.probability:.0f} %)"


def as_json(prediction: Prediction, count: int, logits: bool = False) -> dict[str, Any]:
    """Path, duration and the ``count`` most probable classes; for a long video also its segments, and each clip.

    Args:
        logits: also the mean logits of all classes, by name.
    """
    report: dict[str, Any] = {
        "path": prediction.path,
        "seconds": round(prediction.seconds, 3),
        "views": prediction.num_views,
        "top": top_as_json(prediction.class_names, prediction.probabilities, count),
    }
    if logits:
        report["logits"] = prediction.logits.tolist()
    if prediction.has_timeline:
        clips = zip(prediction.starts.tolist(), prediction.ends.tolist(), prediction.timeline, strict=True)
        report["segments"] = [segment_as_json(segment) for segment in prediction.segments()]
        names = prediction.class_names
        report["timeline"] = [
            {"start": round(start, 3), "end": round(end, 3), "top": top_as_json(names, probabilities, count)}
            for start, end, probabilities in clips
        ]
    return report


def segment_as_json(segment: Segment) -> dict[str, Any]:
    """Times, class and probability of a segment."""
    times = {"start": round(segment.start, 3), "end": round(segment.end, 3)}
    return {**times, "class": segment.class_name, "probability": round(segment.probability, 6)}


def top_as_json(class_names: Sequence[str], probabilities: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The ``count`` most probable classes of (K,) ``probabilities``."""
    return [
        {"class": class_names[label], "probability": round(float(probabilities[label]), 6)}
        for label in top_classes(probabilities, count)
    ]


def as_csv(videos: Iterable[dict[str, Any]], class_names: Sequence[str], count: int, logits: bool = False) -> str:
    """One row per file: path, error, seconds, the most probable classes, and the segments of a long video.

    Args:
        videos: results of `as_json`, or ``path`` and ``error`` of a file that could not be read.
        class_names: K names.
        count: the number of most probable classes.
        logits: add a column per class.
    """
    ranks = range(1, min(count, len(class_names)) + 1)
    columns = ["path", "error", "seconds", *(f"{key}_{rank}" for rank in ranks for key in ("class", "probability"))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(f"logit: {name}" for name in class_names if logits), "segments"])
    for video in videos:
        row = [video["path"], video.get("error", ""), video.get("seconds", "")]
        row += [value for entry in video.get("top", ()) for value in (entry["class"], entry["probability"])]
        row += [""] * (len(columns) - len(row)) + (video.get("logits", [""] * len(class_names)) if logits else [])
        segments = (f"{part['start']:.1f}-{part['end']:.1f} s {part['class']}" for part in video.get("segments", ()))
        writer.writerow([*row, "; ".join(segments)])
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
        rows = {prediction.class_names[label]: row for row, label in enumerate(shown)}
        segments = [(part.start, part.end, rows.get(part.class_name)) for part in prediction.segments()]
        timeline = Timeline(prediction.seconds, prediction.starts, prediction.ends, probabilities, segments)
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
