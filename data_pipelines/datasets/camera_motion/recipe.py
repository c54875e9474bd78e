"""What a camera_motion dataset consists of: its classes, its splits and the parameters of its videos."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.datasets.camera_motion.photographs import TRAIN_PHOTOGRAPHS, VALIDATION_PHOTOGRAPHS, Photograph
from data_pipelines.io.errors import DataError

RENDERER_VERSION = 3  # datasets of different versions have different frames
X, Y, LOG_SCALE, ANGLE = range(4)  # columns of a camera pose, see `camera_paths.camera_path`


class Motion(NamedTuple):
    """A class of the dataset: the pose column that changes, and in which direction."""

    template: str
    axis: int | None = None
    direction: int = 0
    shakes: bool = False


MOTIONS = (  # in the order of the class ids
    Motion("Panning left over [something]", X, -1),
    Motion("Panning right over [something]", X, 1),
    Motion("Tilting up over [something]", Y, -1),
    Motion("Tilting down over [something]", Y, 1),
    Motion("Zooming in on [something]", LOG_SCALE, -1),
    Motion("Zooming out of [something]", LOG_SCALE, 1),
    Motion("Rotating clockwise over [something]", ANGLE, 1),
    Motion("Rotating counter-clockwise over [something]", ANGLE, -1),
    Motion("Standing still over [something]"),
    Motion("Shaking over [something]", shakes=True),
)
PHOTOGRAPHS: dict[str, tuple[Photograph, ...]] = {"train": TRAIN_PHOTOGRAPHS, "validation": VALIDATION_PHOTOGRAPHS}
SPLITS = tuple(PHOTOGRAPHS)


@dataclass(frozen=True)
class Recipe:
    """Parameters of a dataset. The same recipe always gives the same frames.

    Attributes:
        train_videos, validation_videos: number of videos per split.
        seed: source of all randomness.
        frames, height, width: size of a video.

    Raises:
        DataError: a value is out of range.
    """

    train_videos: int = 3000
    validation_videos: int = 500
    seed: int = 0
    frames: int = 24
    height: int = 64
    width: int = 80

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            minimum = 0 if name == "seed" else 1
            if value < minimum:
                raise DataError(f"Recipe.{name}: found {value}, expected at least {minimum}")
            if name in ("height", "width") and value % 2:
                raise DataError(f"Recipe.{name}: found {value}, expected an even number, which H.264 requires")

    def num_videos(self, split: str) -> int:
        return self.train_videos if split == "train" else self.validation_videos

    def video_id(self, split: str, index: int) -> str:
        """The file name without suffix. Ids are unique over both splits and start at 1."""
        offset = self.train_videos if split == "validation" else 0
        return str(index + 1 + offset)

    def rng(self, split: str, index: int) -> np.random.Generator:
        """The random numbers of one video, independent of all other videos."""
        return np.random.default_rng((self.seed, SPLITS.index(split), index))

    def to_dict(self) -> dict[str, int]:
        """The content of recipe.json, which identifies a rendered dataset."""
        return {"camera_motion": RENDERER_VERSION, **asdict(self)}


def motion_of(index: int) -> int:
    """The class id of video ``index``: the classes take turns."""
    return index % len(MOTIONS)


def draw_photographs(split: str, rng: np.random.Generator) -> tuple[Photograph, Photograph]:
    """The photographs of a video's two layers. These are the first two draws from the video's generator."""
    first, second = rng.integers(len(PHOTOGRAPHS[split]), size=2)
    return PHOTOGRAPHS[split][first], PHOTOGRAPHS[split][second]
