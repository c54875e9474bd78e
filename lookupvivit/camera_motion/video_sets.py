"""Labelled videos to evaluate camera motion models on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.datasets.camera_motion import Recipe, prepare
from data_pipelines.datasets.something_something import read_something_something
from data_pipelines.io.csv_files import read_csv
from data_pipelines.io.errors import DataError
from lookupvivit.camera_motion import second_renderer
from lookupvivit.camera_motion.classes import CLASS_IDS, CLASS_NAMES, class_ids
from lookupvivit.errors import UserError

SEED = 1  # of rendered evaluation sets; the pretrained model was trained and validated with seed 0
LABEL_COLUMNS = ("path", "start", "end", "class")


@dataclass(frozen=True)
class LabelledVideo:
    """A video, or a part of it, in which the camera moves as ``label`` says.

    Attributes:
        path: of the file.
        label: index in `CLASS_NAMES`.
        span: start and end of the part in seconds; None for the whole video.
    """

    path: str
    label: int
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class VideoSet:
    """Labelled videos of one source.

    Attributes:
        name: key in the results.
        title: what the videos are.
        videos: the videos.
    """

    name: str
    title: str
    videos: tuple[LabelledVideo, ...]


def first_renderer_set(folder: Path, count: int) -> VideoSet:
    """Videos as the pretrained model was trained on, from photographs and footage that no training video shows."""
    recipe = Recipe(1, count, SEED, frames=20, min_fps=8, max_fps=30, footage=30, variation=100)
    prepare(folder, recipe)
    return VideoSet("first renderer", "renderer of the training videos", validation_videos(folder))


def virtual_camera_set(folder: Path, count: int) -> VideoSet:
    """A virtual camera over real footage that no training video shows, at speeds that span a factor of three."""
    recipe = Recipe(1, count, SEED, frames=24, min_fps=10, max_fps=60, footage=100, variation=50)
    prepare(folder, recipe)
    return VideoSet("virtual camera", "virtual camera over real footage", validation_videos(folder))


def second_renderer_set(folder: Path, count: int) -> VideoSet:
    """Videos of `second_renderer`, from photographs that no training video shows.

    Raises:
        UserError: ``count`` is not a multiple of ten.
    """
    if not folder.exists():
        try:
            second_renderer.write_videos(folder, count, SEED)
        except ValueError as error:
            raise UserError(str(error)) from None
    files = [(path, CLASS_IDS[path.parent.name]) for path in sorted(folder.glob("*/*"))]
    return VideoSet(
        "second renderer", "second renderer", tuple(LabelledVideo(str(path), label) for path, label in files)
    )


def dataset(root: Path) -> VideoSet:
    """The validation videos of a camera_motion dataset, which a run has rendered."""
    return VideoSet(str(root), f"validation videos of {root}", validation_videos(root))


def validation_videos(root: Path) -> tuple[LabelledVideo, ...]:
    """The validation split of a camera_motion dataset with ten classes.

    Raises:
        DataError: there is no dataset.
        UserError: its classes are others.
    """
    manifest = read_something_something(root, "validation")
    ids = class_ids(manifest.class_names, str(root))
    return tuple(
        LabelledVideo(path, ids[label]) for path, label in zip(manifest.paths, manifest.labels.tolist(), strict=True)
    )


def labelled_set(file: Path) -> VideoSet:
    """The videos of a CSV file with the columns path, start, end and class.

    Paths are relative to the file. Start and end are in seconds; both are empty if the label holds for the whole video.

    Raises:
        DataError: the file has another form, or names an unknown class.
    """
    videos = []
    for line, (path, start, end, name) in read_csv(file, LABEL_COLUMNS, strip=True):
        if name not in CLASS_IDS:
            raise DataError(f"{file}:{line}: found the class {name!r}, expected one of {', '.join(CLASS_NAMES)}")
        span = None if start == end == "" else (_seconds(start, file, line), _seconds(end, file, line))
        if span and span[0] >= span[1]:
            raise DataError(f"{file}:{line}: found the end {end}, expected a time after the start, {start}")
        videos.append(LabelledVideo(str(file.parent / path), CLASS_IDS[name], span))
    if not videos:
        raise DataError(f"{file}: found no videos")
    return VideoSet(str(file), f"videos of {file}", tuple(videos))


def _seconds(text: str, file: Path, line: int) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{file}:{line}: found the time {text!r}, expected seconds from the start of the video")
    return seconds
