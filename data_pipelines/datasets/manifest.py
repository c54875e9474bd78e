"""The labelled videos of one split, as every data set hands them over."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.tar_paths import containing_file

CENTRE_CLIP = -1  # clip index of the additional centre view that is kept for 1x1 scoring

# As Python itself reads file names: bytes that are not UTF-8 come back as they were.
ENCODING = ("utf-8", "surrogateescape")


class PathList(Sequence[str]):
    """Paths that cannot be changed, as one blob of UTF-8 and the places where they begin.

    No object per path: 240,000 of them take their letters and 8 bytes each, are pickled in a millisecond, and stay
    shared with the processes forked to load them, because no reference is counted in their memory.
    """

    __slots__ = ("_blob", "_offsets")

    def __init__(self, paths: Iterable[str]) -> None:
        blob, offsets = bytearray(), array("q", [0])
        for path in paths:
            blob += path.encode(*ENCODING)
            offsets.append(len(blob))
        self._blob = np.frombuffer(bytes(blob), dtype=np.uint8)
        self._offsets = np.frombuffer(offsets.tobytes(), dtype=np.int64)  # (paths + 1,)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> PathList: ...
    def __getitem__(self, index: int | slice) -> str | PathList:
        if isinstance(index, slice):
            return PathList(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]  # negative ones, and the IndexError
        start, end = self._offsets[index : index + 2]
        return self._blob[start:end].tobytes().decode(*ENCODING)

    def __iter__(self) -> Iterator[str]:
        blob = self._blob.data
        for start, end in pairwise(self._offsets.tolist()):
            yield str(blob[start:end], *ENCODING)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PathList):
            return np.array_equal(self._offsets, other._offsets) and np.array_equal(self._blob, other._blob)
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"PathList([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} paths)"


@dataclass(frozen=True)
class VideoManifest:
    """Video files and their labels.

    Attributes:
        paths: one file, or folder of pictures, per video; any strings are accepted and kept as a `PathList`.
        labels: class ids, int64 (len(paths),).
        class_names: name of every class id.
        source: the file or folder the list was read from, for messages.
        left_out: listed videos that are not among these, because their files do not exist.
        ignored: files and folders found among the videos that are none.
    """

    paths: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    left_out: int = 0
    ignored: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.paths, PathList):
            object.__setattr__(self, "paths", PathList(self.paths))
        if not self.paths:
            raise DataError(f"{self.source}: lists no video; at least one is needed")
        if self.labels.shape != (len(self.paths),):
            raise DataError(f"{self.source}: {len(self.paths)} videos but labels of shape {self.labels.shape}")
        hashes = np.fromiter(map(hash, self.paths), dtype=np.int64, count=len(self.paths))
        if len(np.unique(hashes)) < len(hashes):  # equal hashes may still be different paths
            seen: set[str] = set()
            twice = next((path for path in self.paths if path in seen or seen.add(path)), None)
            if twice is not None:
                raise DataError(f"{self.source}: lists {twice} more than once; every video must stand there once")

    def __len__(self) -> int:
        return len(self.paths)

    def missing(self) -> list[int]:
        """Indices of the videos whose file does not exist. Every folder is listed once, no file asked for."""
        folders: dict[str, set[str]] = {}
        absent = []
        for index, path in enumerate(self.paths):
            folder, name = os.path.split(containing_file(path))
            if folder not in folders:
                folders[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
            if name not in folders[folder]:
                absent.append(index)
        return absent

    def only(self, indices: Sequence[int]) -> VideoManifest:
        """The videos at these places."""
        return replace(self, paths=PathList(self.paths[i] for i in indices), labels=self.labels[list(indices)])


def on_disk(manifest: VideoManifest) -> VideoManifest:
    """The videos whose files exist; the caller reports how many do not.

    Raises:
        MissingDataError: none of them exists.
    """
    absent = set(manifest.missing())
    if len(absent) == len(manifest):
        raise MissingDataError(
            f"{manifest.source}: none of its {len(manifest)} videos exists; the first was looked for at "
            f"{manifest.paths[0]}; is the data root the folder that the listed paths start from?"
        )
    if not absent:
        return manifest
    kept = [index for index in range(len(manifest)) if index not in absent]
    return replace(manifest.only(kept), left_out=len(absent))


def skip(manifest: VideoManifest, file: Path) -> VideoManifest:
    """The videos that ``file`` does not name: one path a line, what follows a tab is the reason.

    Raises:
        MissingDataError: there is no such file.
        DataError: it names every video.
    """
    if not file.is_file():
        raise MissingDataError(f"{file}: no such file; data.skip_list is one that tools/prepare_dataset.py writes")
    named = {line.partition("\t")[0] for line in file.read_text(encoding="utf-8").splitlines()}
    kept = [index for index, path in enumerate(manifest.paths) if path not in named]
    if not kept:
        raise DataError(f"{file}: names every one of the {len(manifest)} videos of {manifest.source}")
    return manifest.only(kept)
