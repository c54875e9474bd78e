"""Datasets as a tree of class folders:

    root/
      train/<class>/<video>             a video, an image (a video of one frame), or a folder of images
      val/<class>/<video>               or validation/, else test/

The classes are the names of the folders in alphabetical order. ImageNet, unpacked as usual, is such a tree. A root that
contains the class folders themselves, without splits, is a validation set alone, unless
`data_pipelines.datasets.group_split` splits it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.datasets.layout import find_folder, require_split
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import is_folder, is_hidden, is_image, is_video, sorted_entries

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation", "test")}


class UnsplitFoldersError(MissingDataError):
    """Class folders where a folder of training videos is expected."""


def read_split_folders(root: str | os.PathLike[str], split: str) -> VideoManifest:
    """The videos of ``split`` ("train" or "val"), class by class; ``source`` is the split's folder.

    Names that start with a dot are skipped. Other files, and folders without an image, are counted in
    ``num_ignored``. Without a training folder, as on a machine that only tests, the validation folder determines the
    classes. Without any split folder, ``root`` is the validation folder.

    Raises:
        UnsplitFoldersError: ``root`` contains the class folders themselves, and the split is "train".
        MissingDataError: the split has no folder.
        DataError: training and validation have different classes, or a training class is empty.
    """
    root = Path(root)
    require_split(split, SPLIT_FOLDERS)
    folder, train_folder = find_folder(root, SPLIT_FOLDERS[split]), find_folder(root, SPLIT_FOLDERS["train"])
    if folder is None and train_folder is None and split == "val" and _contains_classes(root):
        folder = root
    if folder is None:
        is_unsplit = split == "train" and _contains_classes(root)
        raise (UnsplitFoldersError if is_unsplit else MissingDataError)(_missing_split(root, split))
    classes = _class_folders(folder)
    if train_folder is not None and folder != train_folder:
        _require_same_classes(folder, classes, train_folder)
    return _read(folder, classes, allow_empty=folder != train_folder, num_ignored=_num_files(folder))


def read_unsplit_folders(root: str | os.PathLike[str]) -> VideoManifest:
    """All samples of a ``root`` that contains the class folders themselves.

    Raises:
        MissingDataError, DataError: as `read_class_folders`, or there are folders of splits.
    """
    if split_folder := find_folder(Path(root), [name for names in SPLIT_FOLDERS.values() for name in names]):
        raise DataError(f"{split_folder}: found a folder of a split, expected class folders without splits")
    return read_class_folders(root)


def read_class_folders(
    folder: str | os.PathLike[str], classes: Sequence[str] | None = None, allow_other_folders: bool = False
) -> VideoManifest:
    """All samples in ``folder``/<class>/, as a complete test set: every class must have samples.

    Args:
        folder: contains the class folders.
        classes: names of the class folders in the order of their ids; by default all folders in alphabetical order.
        allow_other_folders: skip folders that are not in ``classes`` instead of raising.

    Raises:
        MissingDataError: the folder does not exist or contains no class folder.
        DataError: a class is missing, empty or unknown.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: {_found(folder)}, expected a folder with one folder per class")
    present = _class_folders(folder)
    if classes is None:
        classes = present
    if not classes:
        raise MissingDataError(f"{folder}: found no folders, expected one per class")
    missing = set(classes) - set(present)
    if missing:
        raise DataError(
            f"{folder}: found no folder {min(missing)!r} ({len(missing)} of {len(classes)} classes missing)"
        )
    unknown = set(present) - set(classes)
    if unknown and not allow_other_folders:
        raise DataError(
            f"{folder}: found the folder {min(unknown)!r}, which is no class ({len(unknown)} such folders); expected "
            f"{len(classes)} classes from {min(classes)!r} to {max(classes)!r}"
        )
    return _read(folder, classes)


def _read(folder: Path, classes: Sequence[str], allow_empty: bool = False, num_ignored: int = 0) -> VideoManifest:
    paths: list[str] = []
    counts: list[int] = []
    for name in classes:
        entries = sorted_entries(folder / name)
        samples = [os.path.join(folder, name, entry.name) for entry in entries if _is_sample(entry)]
        if not samples and not allow_empty:
            raise DataError(f"{folder / name}: found no video or image of this class, expected at least one")
        paths += samples
        counts.append(len(samples))
        num_ignored += len(entries) - len(samples)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return VideoManifest(paths, labels, tuple(classes), str(folder), num_ignored=num_ignored)


def _missing_split(root: Path, split: str) -> str:
    expected = f"expected {' or '.join(SPLIT_FOLDERS[split])} with one folder per class"
    if not root.is_dir():
        return f"{root}: {_found(root)}, {expected}"
    hint = f". Is {root.parent} the root?" if find_folder(root.parent, SPLIT_FOLDERS[split]) else ""
    if split == "train" and _contains_classes(root):
        hint = "; class folders without splits can be tested only"
    return f"{root}: no folder of the split {split!r}, {expected}{hint}"


def _found(path: Path) -> str:
    return "found a file" if path.exists() else "no such folder"


def _class_folders(folder: Path) -> list[str]:
    return [entry.name for entry in sorted_entries(folder) if is_folder(entry)]


def _contains_classes(root: Path) -> bool:
    """Whether ``root`` contains folders with samples, and is not the folder of a split itself."""
    if not root.is_dir() or any(root.absolute().name in names for names in SPLIT_FOLDERS.values()):
        return False
    return any(_is_sample(entry) for name in _class_folders(root) for entry in sorted_entries(root / name))


def _num_files(folder: Path) -> int:
    return sum(not is_folder(entry) for entry in sorted_entries(folder))


def _require_same_classes(folder: Path, classes: Collection[str], train_folder: Path) -> None:
    train_classes = _class_folders(train_folder)
    for present, absent, difference in (
        (folder, train_folder, set(classes) - set(train_classes)),
        (train_folder, folder, set(train_classes) - set(classes)),
    ):
        if difference:
            raise DataError(
                f"{present}: found the class {min(difference)!r}, which {absent} lacks ({len(difference)} such classes)"
            )


def _is_sample(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a video, an image, or a folder that contains an image or cannot be read."""
    if is_video(entry.name) or is_image(entry.name):
        return True
    if not is_folder(entry):
        return False
    try:
        with os.scandir(entry.path) as files:
            return any(is_image(file.name) and not is_hidden(file.name) for file in files)
    except OSError:
        return True  # reported with the other samples that cannot be read
