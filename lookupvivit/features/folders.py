"""Folders of features: one .npz file per video, and ``features.json`` with the settings that they have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.atomic import PREFIX, write_json
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from data_pipelines.io.text import output_name
from lookupvivit.evaluation.array_files import PredictionsError, load_arrays

SETTINGS = "features.json"
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The pooled features of N videos, in the order of their names.

    Attributes:
        files: N .npz files, which also have the tokens.
        names: N names.
        labels: int64 (N,), -1 without a label.
        class_names: names of the labels, empty without labels.
        streams: float32 (N, D) by name, ``compressed_features`` and ``lookup_features`` or ``features``: the mean over
            the clips and crops of a video.
        settings: contents of features.json.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    streams: dict[str, np.ndarray]
    settings: dict[str, Any]

    @property
    def features(self) -> np.ndarray:
        """All streams next to each other, float32 (N, D)."""
        return np.concatenate(list(self.streams.values()), axis=1)


def load_features(folder: str | Path) -> FeatureSet:
    """Read the pooled features of a folder that `lookupvivit.extract_features` wrote.

    Raises:
        MissingDataError: the folder has no features.
        DataError, PredictionsError: a file is corrupt or has other content.
    """
    folder = Path(folder)
    settings = read_json(folder / SETTINGS, dict, max_bytes=SMALL_BYTES)
    files = sorted(_feature_files(folder))
    if not files:
        raise MissingDataError(f"{folder}: found no features, expected at least one .npz file")
    names, labels, rows = [], [], []
    try:
        streams = [str(name) for name in settings["streams"]]
        class_names = tuple(map(str, settings["class_names"]))
    except (KeyError, TypeError):
        raise DataError(f"{folder / SETTINGS}: streams, class_names: expected lists of names") from None
    for file in files:
        arrays = load_arrays(file, ["name", "label", *streams])
        names.append(str(arrays["name"]))
        labels.append(_label(arrays["label"], len(class_names), file))
        rows.append([arrays[stream].mean(axis=0) for stream in streams])
    order = sorted(range(len(names)), key=names.__getitem__)
    try:
        stacked = {stream: np.stack([rows[i][n] for i in order]) for n, stream in enumerate(streams)}
    except ValueError:
        raise DataError(f"{folder}: found features of several widths, expected those of one model") from None
    return FeatureSet(
        files=tuple(files[i] for i in order),
        names=tuple(names[i] for i in order),
        labels=np.array(labels, np.int64)[order],
        class_names=class_names,
        streams=stacked,
        settings=settings,
    )


def _feature_files(folder: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(PREFIX)]  # of files that a kill left
        yield from (Path(parent, name) for name in names if name.endswith(".npz"))


def _label(value: np.ndarray, num_classes: int, file: Path) -> int:
    if value.shape != () or not NO_LABEL <= value < num_classes:
        raise PredictionsError(f"{file}: label: found {value}, expected {NO_LABEL} to {num_classes - 1}")
    return int(value)


def feature_file(folder: Path, name: str) -> Path:
    """Where the features of the video with this name are stored."""
    return folder / f"{output_name(name)}.npz"


def open_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write ``features.json``, or check that the features in the folder have the same settings.

    Any number of processes may do this at the same time.

    Raises:
        DataError: the folder has features with other settings.
    """
    file, settings = folder / SETTINGS, json.loads(json.dumps(settings))  # tuples become lists
    try:
        stored = read_json(file, dict, max_bytes=SMALL_BYTES)
    except MissingDataError:
        write_json(file, settings)
        return
    for key in sorted(stored.keys() | settings.keys()):
        if stored.get(key) != settings.get(key):
            raise DataError(
                f"{file}: {key}: found features of {_short(stored.get(key))}, expected {_short(settings.get(key))}; "
                "choose another output folder"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def names_in(paths: Sequence[str]) -> list[str]:
    """The names of the videos of a dataset: their paths relative to the folder that contains all of them."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [os.path.relpath(path, common) for path in absolute]
