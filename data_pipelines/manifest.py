"""The labelled videos of one split, as every data set hands them over."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, MissingDataError


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

    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    left_out: int = 0

    def __post_init__(self) -> None:
        if not self.paths:
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
    paths = tuple(manifest.paths[i] for i in kept)
    return replace(manifest, paths=paths, labels=manifest.labels[kept], left_out=len(absent))


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
    return replace(manifest, paths=tuple(manifest.paths[i] for i in kept), labels=manifest.labels[kept])
