"""The labelled videos of one split, as every data set hands them over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from data_pipelines.errors import DataError, MissingDataError

VIDEOS = (
    ".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".asf", ".flv", ".ts", ".3gp", ".gif",
)  # fmt: skip


class PathList(Sequence[str]):
    """Paths in two arrays. As Python strings, those of a quarter of a million videos would be touched, and so copied,
    in every worker that a loader forks."""

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> PathList: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]].tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None

    def take(self, indices: Iterable[int]) -> PathList:
        """The paths at these places."""
        return PathList(self[index] for index in indices)


@dataclass(frozen=True)
class VideoManifest:
    """Video files and their labels.

    Attributes:
        paths: one file per video.
        labels: class ids, int64 (len(paths),).
        class_names: name of every class id.
        source: the file the list was read from, for messages.
        left_out: listed videos that are not among these, because their files do not exist.
    """

    paths: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    left_out: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.paths, PathList):
            object.__setattr__(self, "paths", PathList(self.paths))
        if not len(self.paths):
            raise DataError(f"{self.source}: lists no video; at least one is needed")
        if self.labels.shape != (len(self.paths),):
            raise DataError(
                f"{self.source}: {len(self.paths)} videos but labels of shape {self.labels.shape}"
            )
        if len(set(self.paths)) < len(self.paths):
            seen: set[str] = set()
            twice = next(path for path in self.paths if path in seen or seen.add(path))
            raise DataError(f"{self.source}: lists {twice} more than once; every video must stand there once")

    def __len__(self) -> int:
        return len(self.paths)

    def missing(self) -> list[int]:
        """Indices of the videos whose file does not exist. Every folder is listed once, no file asked for."""
        folders: dict[str, set[str]] = {}
        absent = []
        for index, path in enumerate(self.paths):
            folder, name = os.path.split(path)
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


def files_below(folder: str | os.PathLike[str], suffixes: tuple[str, ...] = VIDEOS) -> dict[str, str]:
    """Path of every file with one of these suffixes in a folder and its folders, by name; lists each folder once."""
    found: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found |= files_below(entry.path, suffixes)
            elif entry.name.lower().endswith(suffixes):
                found[entry.name] = entry.path
    return found
