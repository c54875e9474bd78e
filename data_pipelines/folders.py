"""Anybody's own videos or pictures in class folders, and ImageNet's layout.

    root/
      train/<class>/<video, picture, or folder of a video's pictures>
      val/<class>/...                    or validation/, valid/, test/

Classes are the folders of train in alphabetical order. A picture is a video of one frame.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data_pipelines.backends import PICTURES
from data_pipelines.errors import DataError, MissingDataError
from data_pipelines.manifest import VIDEOS, VideoManifest

SPLITS = {"train": ("train",), "val": ("val", "validation", "valid", "test")}


def read_folders(root: str | os.PathLike[str], split: str) -> VideoManifest:
    """The videos of ``split``, "train" or "val".

    Raises:
        MissingDataError: no folder of this split, or none with videos in it.
        DataError: a class that train does not have.
    """
    root = Path(root)
    names = _folders(_split_folder(root, "train"))
    folder = _split_folder(root, split)
    unknown = sorted(set(_folders(folder)) - set(names))
    if unknown:
        raise DataError(f"{folder}: has the class {unknown[0]!r} ({len(unknown)} such), which {root / 'train'} lacks")
    paths, labels, others = [], [], 0
    for label, name in enumerate(names):
        if (folder / name).is_dir():
            found, strange = _samples(folder / name)
            paths += found
            labels += [label] * len(found)
            others += strange
    if not paths:
        raise MissingDataError(f"{folder}: its {len(names)} class folders hold no video and no picture")
    source = f"{folder} ({others} files are neither videos nor pictures)" if others else str(folder)
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(names), source)


def _split_folder(root: Path, split: str) -> Path:
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(SPLITS[split])
    raise MissingDataError(f"{root}: no folder {wanted} with a folder per class in it; data.root must be its parent")


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _samples(folder: Path) -> tuple[list[str], int]:
    """Videos, pictures and folders of pictures in a class folder, and how many other files there are."""
    found, others = [], 0
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir() or entry.name.lower().endswith(VIDEOS + PICTURES):
                found.append(entry.path)
            else:
                others += 1
    return found, others
