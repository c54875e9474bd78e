"""Anybody's own data, as a tree of folders:

    root/
      train/<class>/<video>             a video, a picture (a video of one frame), or a folder of pictures
      val/<class>/<video>               or validation/, or else test/

The classes are the names of the folders in alphabetical order. ImageNet as it is commonly unpacked is such a tree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.datasets.manifest import PathList, VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import IMAGE_SUFFIXES, is_video, sorted_entries

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation", "test")}


def read_folders(root: str | os.PathLike[str], split: str) -> VideoManifest:
    """The videos of ``split`` ("train" or "val"), class by class; ``source`` tells which folder that is.

    What starts with a dot is passed over. Other files, and folders without a picture, are counted in ``ignored``. Where
    there is no training folder, as on a machine that only tests, the classes are those of the validation folder.

    Raises:
        MissingDataError: there is no folder of that split.
        DataError: the classes of training and validation differ, or a training class is empty.
    """
    if split not in SPLIT_FOLDERS:
        raise DataError(f"split: found {split!r}, must be one of {', '.join(SPLIT_FOLDERS)}")
    folder, training = _split_folder(Path(root), split), _split_folder(Path(root), "train")
    if folder is None:
        raise MissingDataError(_no_split(Path(root), split))
    classes = _classes(folder)
    _check_same(folder, classes, training)
    found, ignored = _samples(folder, classes)
    if folder == training:
        _check_not_empty(folder, found)
    ignored += sum(not entry.name.startswith(".") and not entry.is_dir() for entry in sorted_entries(folder))
    return _manifest(folder, found, ignored)


def read_class_folders(
    folder: str | os.PathLike[str], classes: Sequence[str] | None = None, among_others: bool = False
) -> VideoManifest:
    """Everything in ``folder``/<class>/: a whole set to test on, that may lack nothing.

    Args:
        classes: what the folders must be called, in the order of their ids; by default the folders in alphabetical
            order.
        among_others: other folders may lie beside these; they are passed over.

    Raises:
        MissingDataError: no such folder.
        DataError: a class is missing, empty or unknown.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise MissingDataError(f"{folder}: {found}; must be a folder that holds one of pictures or videos per class")
    there = _classes(folder)
    classes = there if classes is None else list(classes)
    if not classes:
        raise MissingDataError(f"{folder}: no folder of pictures or videos per class")
    missing, unknown = set(classes) - set(there), set() if among_others else set(there) - set(classes)
    for what, names, kind in (("no folder", missing, "missing"), ("the folder", unknown, "unknown")):
        if names:
            raise DataError(
                f"{folder}: found {what} {min(names)!r} ({len(names)} {kind}), and {len(there)} class folders in all; "
                f"must hold the {len(classes)} from {min(classes)!r} to {max(classes)!r}"
            )
    found, ignored = _samples(folder, classes)
    _check_not_empty(folder, found)
    return _manifest(folder, found, ignored)


def _samples(folder: Path, classes: Sequence[str]) -> tuple[dict[str, list[str]], int]:
    """The names in every class folder, and how many others are none."""
    found, ignored = {}, 0
    for name in classes:
        entries = [entry for entry in sorted_entries(folder / name) if not entry.name.startswith(".")]
        found[name] = [entry.name for entry in entries if _is_sample(entry)]
        ignored += len(entries) - len(found[name])
    return found, ignored


def _check_not_empty(folder: Path, found: dict[str, list[str]]) -> None:
    for name, files in found.items():
        if not files:
            raise DataError(f"{folder / name}: found no video or picture, must hold some of the class {name!r}")


def _manifest(folder: Path, found: dict[str, list[str]], ignored: int) -> VideoManifest:
    paths = PathList(os.path.join(folder, name, file) for name, files in found.items() for file in files)
    labels = np.repeat(np.arange(len(found), dtype=np.int64), [len(names) for names in found.values()])
    return VideoManifest(paths, labels, tuple(found), str(folder), ignored=ignored)


def _no_split(root: Path, split: str) -> str:
    wanted = f"{' or '.join(SPLIT_FOLDERS[split])} with a folder of videos or pictures per class"
    if not root.is_dir():
        return f"{root}: {'a file' if root.exists() else 'no such folder'}; must be a folder that holds {wanted}"
    above = f"; is {root.parent} meant?" if _split_folder(root.parent, split) else ""
    return f"{root}: no folder {wanted}{above}"


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)


def _classes(folder: Path) -> list[str]:
    return [entry.name for entry in sorted_entries(folder) if not entry.name.startswith(".") and entry.is_dir()]


def _check_same(folder: Path, classes: list[str], training: Path | None) -> None:
    if training is None or folder == training:
        return
    here, there = set(classes), set(_classes(training))
    for owner, other, extra in ((folder, training, here - there), (training, folder, there - here)):
        if extra:
            raise DataError(
                f"{owner}: found the class {min(extra)!r}, which {other} lacks ({len(extra)} such); both must have "
                "the same class folders"
            )


def _is_sample(entry: os.DirEntry[str]) -> bool:
    """Whether it is a video, a picture, or a folder with a picture in it."""
    if is_video(entry.name) or _is_picture(entry.name):
        return True
    if not entry.is_dir():
        return False
    with os.scandir(entry.path) as inside:
        return any(_is_picture(file.name) for file in inside)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
