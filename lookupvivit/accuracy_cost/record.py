"""The JSON file of finished points, which a repeated command does not compute again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import write_json
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from lookupvivit.evaluation.array_files import PredictionsError
from lookupvivit.evaluation.metrics import reported_ranks, top_k_correct, wilson_interval
from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.sizes import Keep, Size, TokenSetting, as_keep

Key = tuple[str, TokenSetting, int]  # checkpoint, compressed size and kept tokens, image size

# Keys of the file that differ from the names of the fields.
FILE_KEYS = {
    "conditions": "of",
    "failed_videos": "broken_videos",
    "logits_file": "logits",
    "speed_conditions": "speed_of",
}


@dataclass
class Point:
    """Accuracy and cost of one checkpoint at one size.

    Attributes:
        checkpoint: path of the run or weights.
        model: name of the model.
        compressed_size: (t, h, w); None for a model without compressed tokens.
        image_size: side of the square input, pixels.
        own_size: whether ``compressed_size`` is the model's default (without multi-resolution training, the size that
            it was trained at).
        conditions: what else the accuracy depends on, such as the hash of the weights. A point with other conditions
            is computed again.
        videos, top1_correct: counts.
        top1, top5, top1_interval: per cent, as in `Predictions.summary`; top5 is None for up to five classes.
        failed_videos: number of videos that could not be read; they are not scored.
        gflops: multiply-adds per view, in G.
        parameters: number of parameters.
        logits_file: the logits of all views, relative to the JSON file.
        clips_per_second: measured views per second; None before the measurement.
        speed_conditions: machine, precision, batch size, rounds and time of the speed measurement.
        keep: the lookup tokens that are kept; None for all.
    """

    checkpoint: str
    model: str
    compressed_size: Size | None
    image_size: int
    own_size: bool
    conditions: dict[str, Any]
    videos: int
    top1_correct: int
    top1: float
    top5: float | None
    top1_interval: tuple[float, float]
    failed_videos: int
    gflops: float
    parameters: int
    logits_file: str
    clips_per_second: float | None = None
    speed_conditions: dict[str, Any] | None = None
    keep: Keep | None = None

    @property
    def tokens(self) -> TokenSetting:
        """The compressed size and the kept tokens."""
        return TokenSetting(self.compressed_size, self.keep)

    @property
    def key(self) -> Key:
        """What distinguishes the point from the others of its file."""
        return self.checkpoint, self.tokens, self.image_size

    @property
    def size_name(self) -> str:
        """The tokens as TxHxW, @KEEP or TxHxW@KEEP, or "all tokens"."""
        return tokens_name(self.tokens)

    @property
    def speed(self) -> float:
        """``clips_per_second``, which must have been measured."""
        if self.clips_per_second is None:
            raise ValueError(f"{self.checkpoint} at {self.size_name}: the speed has not been measured")
        return self.clips_per_second

    def to_json(self) -> dict[str, Any]:
        """The point as it stands in the file; without ``keep`` if all tokens are kept, as in earlier versions."""
        values = asdict(self)
        values["keep"] = str(self.keep)
        if self.keep is None:
            del values["keep"]
        return {FILE_KEYS.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Point:
        """Read the result of `to_json`.

        Raises:
            ValueError: other keys.
        """
        names = {FILE_KEYS.get(field.name, field.name): field.name for field in fields(cls)}
        row = {"keep": None, **row}
        if row.keys() != names.keys():
            raise ValueError(f"a point has the keys {', '.join(sorted(row))}")
        values = {names[key]: value for key, value in row.items()}
        size = values["compressed_size"]
        values["compressed_size"] = tuple(size) if size else None
        values["keep"] = None if values["keep"] is None else as_keep(values["keep"])
        values["top1_interval"] = tuple(values["top1_interval"])
        return cls(**values)


def tokens_name(tokens: TokenSetting) -> str:
    """The command-line form; "all tokens" for all tokens of a model without compressed tokens."""
    return str(tokens) or "all tokens"


def scores(predictions: Predictions, description: str) -> dict[str, Any]:
    """The scores of a `Point` from the logits of all views.

    Args:
        predictions: of every video.
        description: names the point in errors.

    Raises:
        PredictionsError: a logit is NaN.
    """
    logits, labels = predictions.video_logits(), predictions.labels
    num_videos = len(labels)
    try:
        top1_correct = int(top_k_correct(logits, labels, 1).sum())
        has_top5 = 5 in reported_ranks(logits.shape[1])
        top5_correct = int(top_k_correct(logits, labels, 5).sum()) if has_top5 else None
    except ValueError as error:
        raise PredictionsError(f"{description}: {error}") from None
    low, high = wilson_interval(top1_correct, num_videos)
    return {
        "videos": num_videos,
        "top1_correct": top1_correct,
        "top1": 100 * top1_correct / num_videos,
        "top5": None if top5_correct is None else 100 * top5_correct / num_videos,
        "top1_interval": (100 * low, 100 * high),
    }


class Record:
    """The points of a JSON file, and the files of their logits next to it.

    Args:
        file: read if it exists; written by `save`.

    Raises:
        PredictionsError: the file exists and holds something else.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.points: dict[Key, Point] = {}
        if file.is_file():
            try:
                rows = read_json(file, dict, max_bytes=SMALL_BYTES)["points"]
                points = [Point.from_json(row) for row in rows]
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                reason = " ".join(str(error).split())
                message = f"{file}: expected the points of an earlier call ({reason}); move the file away"
                raise PredictionsError(message) from None
            self.points = {point.key: point for point in points}

    def find(self, key: Key, conditions: dict[str, Any]) -> Point | None:
        """The finished point of the same conditions whose logits still exist, or None."""
        point = self.points.get(key)
        if point and point.conditions == conditions and (self.file.parent / point.logits_file).is_file():
            return point
        return None

    def load_logits(self, point: Point) -> Predictions:
        """The stored logits of a point."""
        return Predictions.load(self.file.parent / point.logits_file)

    def add(self, point: Point, predictions: Predictions) -> None:
        """Add a point and write its logits. `save` writes the point itself."""
        predictions.save(self.file.parent / point.logits_file)
        self.points[point.key] = point

    def save(self, **entries: Any) -> None:
        """Write all points, and further ``entries`` of the JSON document, atomically."""
        write_json(self.file, {"points": [point.to_json() for point in self.points.values()], **entries})
