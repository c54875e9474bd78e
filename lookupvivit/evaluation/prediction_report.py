"""One prediction as text, as JSON and as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipelines.io.listing import unit_of
from data_pipelines.io.text import one_line
from lookupvivit.evaluation.predictor import Prediction, top_classes
from lookupvivit.visualization.time_format import format_time

MAX_SCENES = 12  # in the text


def as_text(prediction: Prediction, count: int) -> str:
    """The ``count`` most probable classes, one per line, and the scenes of a long video."""
    lines = [f"{prediction.path}  ({_duration(prediction)})"]
    if prediction.has_timeline:
        lines[0] += "  probability from views of the whole video, and mean over time"
    for label in top_classes(prediction.probabilities, count):
        columns = f"  {100 * prediction.probabilities[label]:5.1f} %"
        if prediction.has_timeline:
            columns += f"  {100 * prediction.mean_over_time[label]:5.1f} %"
        lines.append(f"{columns}  {prediction.class_names[label]}")
    scenes, tenths = prediction.scenes(), prediction.seconds < 60
    for scene in scenes[:MAX_SCENES]:
        span = f"{format_time(scene.start, tenths)} - {format_time(scene.end, tenths)}"
        lines.append(f"    {span:>17}  {scene.class_name} ({100 * scene.probability:.0f} %)")
    if len(scenes) > MAX_SCENES:
        lines.append(f"    ... {len(scenes) - MAX_SCENES} more")
    return "\n".join(map(one_line, lines))


def as_json(prediction: Prediction, count: int) -> dict[str, Any]:
    """Path, duration and the ``count`` most probable classes; for a long video also over time and of each clip."""
    report: dict[str, Any] = {
        "path": prediction.path,
        "seconds": round(prediction.seconds, 3),
        "top": _top_as_json(prediction, prediction.probabilities, count),
    }
    if prediction.has_timeline:
        report["top_over_time"] = _top_as_json(prediction, prediction.mean_over_time, count)
        clips = zip(prediction.starts.tolist(), prediction.ends.tolist(), prediction.timeline, strict=True)
        report["timeline"] = [
            {"start": round(start, 3), "end": round(end, 3), "top": _top_as_json(prediction, probabilities, count)}
            for start, end, probabilities in clips
        ]
    return report


def as_figure(prediction: Prediction, count: int, title: str, source: str, views: str) -> np.ndarray:
    """Frames and the ``count`` most probable classes, uint8 (height, width, 3).

    Args:
        prediction: of one video.
        count: the number of classes.
        title: such as the file name.
        source: the run that the model is from.
        views: of the whole video, such as "4x3".
    """
    from lookupvivit.visualization.prediction_figure import Timeline, prediction_figure  # imports matplotlib

    shown = top_classes(prediction.mean_over_time, count)
    timeline, basis = None, f"{views} views of the whole {unit_of(prediction.path)}"
    if prediction.has_timeline:
        probabilities = prediction.timeline[:, shown]
        timeline = Timeline(prediction.seconds, prediction.starts, prediction.ends, probabilities)
        basis = f"probability over time (0 to 100 %), from {len(prediction.starts)} clips"
    return prediction_figure(
        prediction.frames,
        [prediction.class_names[label] for label in shown],
        prediction.mean_over_time[shown],
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
