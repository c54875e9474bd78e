"""The labelled videos of one split. Every dataset reader returns a `VideoManifest`."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import unit_of
from data_pipelines.io.tar_paths import containing_file
from data_pipelines.io.text import ENCODING, numbered_lines, one_line

NO_LABEL = -1
CENTRE_CLIP = -1  # clip index of the additional centre view that is kept for 1x1 scoring


class StringList(Sequence[str]):
    """An immutable list of strings, stored as one block of UTF-8 and the offsets at which the strings begin.

    A path needs 8 bytes in addition to its characters. 240,000 paths are pickled in a millisecond. Forked data
    loading workers share the memory, because it contains no Python objects whose reference counts would change.
    """

    __slots__ = ("_blob", "_offsets")

    def __init__(self, strings: Iterable[str]) -> None:
        blob, offsets = bytearray(), array("q", [0])
        for string in strings:
            blob += string.encode(*ENCODING)
            offsets.append(len(blob))
        self._blob = np.frombuffer(bytes(blob), dtype=np.uint8)
        self._offsets = np.frombuffer(offsets.tobytes(), dtype=np.int64)  # (len + 1,)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> StringList: ...
    def __getitem__(self, index: int | slice) -> str | StringList:
        if isinstance(index, slice):
            return StringList(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]  # resolves negative indices and raises IndexError
        start, end = self._offsets[index : index + 2]
        return self._blob[start:end].tobytes().decode(*ENCODING)

    def __iter__(self) -> Iterator[str]:
        blob = self._blob.data
        for start, end in pairwise(self._offsets.tolist()):
            yield str(blob[start:end], *ENCODING)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringList):
            return np.array_equal(self._offsets, other._offsets) and np.array_equal(self._blob, other._blob)
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"StringList([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} strings)"


@dataclass(frozen=True)
class VideoManifest:
    """Video files and their labels.

    Attributes:
        paths: a file or a folder of images per video; converted to a `StringList`.
        labels: class ids, int64 (len(paths),); or, where videos may have several classes, bool (len(paths), K).
        class_names: the name of each class id.
        source: the file or folder that the list was read from, for messages.
        num_missing: the number of listed videos that were excluded because their files do not exist.
        num_ignored: the number of other files and folders in the folders of the videos.
        groups: the source that each video was cut from, if the list names it; converted to a `StringList`.
        selection: which part of ``source`` these videos are, for messages; "" for all.

    Raises:
        DataError: there are no videos, a video is listed more than once, or ``labels`` has another shape.
    """

    paths: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    num_missing: int = 0
    num_ignored: int = 0
    groups: Sequence[str] | None = None
    selection: str = ""

    def __post_init__(self) -> None:
        for name in ("paths", "groups"):
            if not isinstance(strings := getattr(self, name), StringList | None):
                object.__setattr__(self, name, StringList(strings))
        if not self.paths:
            raise DataError(f"{self.source}: found no videos or images, expected at least one")
        expected = (len(self.paths), *([len(self.class_names)] if self.is_multi_label else []))
        if self.labels.shape != expected:
            raise DataError(f"{self.source}: found labels of shape {self.labels.shape}, expected {expected}")
        if (duplicate := self._duplicate()) is not None:
            raise DataError(f"{self.source}: found {duplicate} more than once, expected each path once")

    def _duplicate(self) -> str | None:
        hashes = np.fromiter(map(hash, self.paths), dtype=np.int64, count=len(self.paths))
        if len(np.unique(hashes)) == len(hashes):
            return None
        seen: set[str] = set()
        for path in self.paths:  # different paths may have equal hashes
            if path in seen:
                return path
            seen.add(path)
        return None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_multi_label(self) -> bool:
        """Whether a video may have any number of classes, instead of exactly one."""
        return self.labels.ndim == 2

    def require_one_label(self) -> None:
        """Raise a DataError if a video may have several classes."""
        if self.is_multi_label:
            raise DataError(f"{self.source}: found several labels per video, expected one")

    @property
    def only_labels(self) -> np.ndarray:
        """The class id of each video, or `NO_LABEL` if a video may have several classes: int64 (len(paths),)."""
        return np.full(len(self), NO_LABEL) if self.is_multi_label else self.labels

    @property
    def first_labels(self) -> np.ndarray:
        """The class id of each video, or the first of several, or 0 for none: int64 (len(paths),)."""
        return self.labels.argmax(axis=1) if self.is_multi_label else self.labels

    def label(self, index: int) -> int | np.ndarray:
        """The class id of a video; if a video may have several classes, float32 (K,) of zeros and ones."""
        return self.labels[index].astype(np.float32) if self.is_multi_label else int(self.labels[index])

    def class_membership(self) -> np.ndarray:
        """Whether each video is of each class, bool (len(paths), K)."""
        if self.is_multi_label:
            return self.labels
        return self.labels[:, None] == np.arange(len(self.class_names))

    @property
    def unit(self) -> str:
        """What the first path is, "image" or "video", for messages."""
        return unit_of(self.paths[0])

    def missing(self) -> list[int]:
        """Return the indices of the videos that do not exist. Folders are listed once, not queried for each file."""
        folders: dict[str, set[str]] = {}
        missing = []
        for index, path in enumerate(self.paths):
            folder, name = os.path.split(containing_file(path))
            folder = folder or "."
            if folder not in folders:
                folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
            if name not in folders[folder]:
                missing.append(index)
        return missing

    def select(self, indices: Sequence[int]) -> VideoManifest:
        """The videos at ``indices``."""
        groups = None if self.groups is None else StringList(self.groups[i] for i in indices)
        paths = StringList(self.paths[i] for i in indices)
        return replace(self, paths=paths, labels=self.labels[list(indices)], groups=groups)

    def in_class_order(self, class_names: Sequence[str], source: str) -> VideoManifest:
        """Return the same videos with the class ids of ``class_names``, which are the same names in any order.

        Args:
            class_names: the names in the order of the new class ids.
            source: the origin of ``class_names``, for messages.

        Raises:
            DataError: the two sets of names differ.
        """
        if self.class_names == tuple(class_names):
            return self
        ids, own = {name: label for label, name in enumerate(class_names)}, set(self.class_names)
        for place, names, other, other_names in (
            (self.source, self.class_names, source, ids.keys()),
            (source, class_names, self.source, own),
        ):
            if missing := [name for name in names if name not in other_names]:
                raise DataError(
                    f"{place}: found the class {missing[0]!r}, which {other} lacks ({len(missing)} such classes)"
                )
        new_ids = np.array([ids[name] for name in self.class_names], dtype=np.int64)
        labels = self.labels[:, np.argsort(new_ids)] if self.is_multi_label else new_ids[self.labels]
        return replace(self, labels=labels, class_names=tuple(class_names))

    def empty_classes(self) -> list[str]:
        """Names of the classes without a video."""
        if self.is_multi_label:
            counts = self.labels.sum(axis=0)
        else:
            counts = np.bincount(self.labels, minlength=len(self.class_names))
        return [name for name, count in zip(self.class_names, counts, strict=True) if not count]


def exclude_missing(manifest: VideoManifest) -> VideoManifest:
    """Exclude the videos whose files do not exist. The caller reports ``num_missing``, their number.

    Raises:
        MissingDataError: none of the videos exists.
    """
    missing = set(manifest.missing())
    if len(missing) == len(manifest):
        raise MissingDataError(
            f"{manifest.source}: none of its {len(manifest)} {manifest.unit}s exists; the first is expected at "
            f"{manifest.paths[0]}; check that the dataset's root is the folder that the listed paths are relative to"
        )
    if not missing:
        return manifest
    kept = [index for index in range(len(manifest)) if index not in missing]
    return replace(manifest.select(kept), num_missing=len(missing))


def skip_line(path: str, reason: str) -> str:
    """A line of a skip list: the path, a tab and the reason. A path with a tab or a line feed is a JSON string."""
    written = path if path.isprintable() and not path.startswith('"') else json.dumps(path)
    return f"{written}\t{one_line(reason)}\n"


def exclude_listed(manifest: VideoManifest, skip_list: Path) -> VideoManifest:
    """Exclude the videos in ``skip_list``. Each of its lines is a path, optionally followed by a tab and a reason.

    Paths may be JSON strings, as `skip_line` writes some.

    Raises:
        MissingDataError: the file does not exist.
        DataError: the list contains every video.
    """
    if not skip_list.is_file():
        raise MissingDataError(f"{skip_list}: no such file, expected a skip list written by tools/prepare_dataset.py")
    skipped = {_location(_listed_path(line)) for _, line in numbered_lines(skip_list)}
    kept = [index for index, path in enumerate(manifest.paths) if _location(path) not in skipped]
    if not kept:
        raise DataError(f"{skip_list}: found all {len(manifest)} {manifest.unit}s of {manifest.source}, expected fewer")
    return manifest.select(kept)


def _listed_path(line: str) -> str:
    path = line.rstrip("\n").partition("\t")[0]
    with suppress(ValueError):
        return str(json.loads(path)) if path.startswith('"') else path
    return path


def _location(path: str) -> str:
    """Return the absolute path, which is the same for all spellings of a path. Symbolic links are not resolved."""
    return os.path.abspath(path)
