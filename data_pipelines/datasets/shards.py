"""Labelled images in webdataset's tar shards, for datasets that are too large for one file per image:

    root/
      train-000000.tar, train-000001.tar, ...
        n01440764/10026.jpg       an image; consecutive members with the same name up to the first dot are one sample
        n01440764/10026.cls       its label: an integer in a .cls or .txt, or under "label" in a .json
      val-000000.tar, ...
      classes.txt                 optional: class names in the order of their ids; or classes.json

Each shard is scanned once. An index of its images is then kept next to it in `.index/`, so that images are read in any
order: training, resuming and testing keep all guarantees of `data_pipelines.loader`, which a stream cannot give. The
shards must therefore be uncompressed files on a disk.

Only images and labels are read. Other members, pickles among them, are counted as ignored.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.datasets.class_names import CLASS_LISTS, class_names
from data_pipelines.datasets.manifest import StringList, VideoManifest
from data_pipelines.datasets.shard_index import ShardIndex, load_indices, require_webdataset
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.json_files import excerpt, read_json
from data_pipelines.io.tar_paths import TarMember
from data_pipelines.io.text import read_names

CLASS_FILES = ("classes.txt", "classes.json")


def read_shards(root: str | os.PathLike[str], pattern: str, class_names: Sequence[str]) -> VideoManifest:
    """The images of all shards that match ``pattern``, in the order of the shards' names and of their members.

    Args:
        root: folder that the pattern is relative to.
        pattern: webdataset's brace notation, ``train-{000000..001281}.tar``, of which all shards must exist, or a
            wildcard, ``*train*.tar``.
        class_names: in the order of the class ids.

    Raises:
        DataError: webdataset cannot be imported, a shard is damaged or compressed, an image has no label, or a label
            is out of range.
        MissingDataError: a shard does not exist.
    """
    shards = find_shards(root, pattern)
    indices = load_indices(shards)
    for shard, index in zip(shards, indices, strict=True):
        _check_labels(shard, index, len(class_names))
    return VideoManifest(
        paths=StringList(_member_paths(shards, indices)),
        labels=np.concatenate([index.labels for index in indices]),
        class_names=tuple(class_names),
        source=os.path.join(root, pattern),
        num_ignored=sum(index.num_ignored for index in indices),
    )


def _check_labels(shard: str, index: ShardIndex, num_classes: int) -> None:
    largest = int(index.labels.argmax())
    if index.labels[largest] >= num_classes:
        raise DataError(
            f"{shard}: {index.member_names()[largest]}: found the label {index.labels[largest]}, expected a label "
            f"below {num_classes}, the number of classes"
        )


def _member_paths(shards: Sequence[str], indices: Sequence[ShardIndex]) -> Iterator[str]:
    for shard, index in zip(shards, indices, strict=True):
        members = zip(index.offsets.tolist(), index.sizes.tolist(), index.member_names(), strict=True)
        for offset, size, name in members:
            yield str(TarMember(shard, offset, size, name))


def find_shards(root: str | os.PathLike[str], pattern: str) -> list[str]:
    """Paths of the shards that match ``pattern``; arguments and errors as in `read_shards`."""
    try:
        names = require_webdataset().shardlists.expand_urls(pattern)
    except ValueError as error:  # unbalanced braces
        raise DataError(f"{pattern}: not a pattern of shards: {error}") from None
    shards: list[str] = []
    missing: list[str] = []
    for name in names:
        matches = sorted(glob.glob(os.path.join(glob.escape(os.fspath(root)), name)))
        shards += matches
        if not matches:
            missing.append(os.path.join(root, name))
    if missing:
        raise MissingDataError(f"{missing[0]}: no such shard ({len(missing)} missing)")
    return shards


def read_shard_classes(root: str | os.PathLike[str], class_list: str | None, num_classes: int) -> tuple[str, ...]:
    """Class names in the order of their ids.

    Args:
        root: folder that ``class_list`` is relative to.
        class_list: one of `data_pipelines.datasets.class_names.CLASS_LISTS`; a text file with one name per line; or a
            JSON file with a list of names, or with a mapping from names to ids. None reads classes.txt or
            classes.json in ``root``; without such a file the names are numbers.
        num_classes: how many numbers.

    Raises:
        MissingDataError: the file does not exist.
        DataError: the file has another format.
    """
    if class_list in CLASS_LISTS:
        return class_names(class_list)
    if class_list is None:
        file = next((Path(root) / name for name in CLASS_FILES if (Path(root) / name).is_file()), None)
        return tuple(map(str, range(num_classes))) if file is None else _read_class_file(file)
    file = Path(root) / class_list
    if not file.is_file():
        raise MissingDataError(f"{file}: no such file, expected a .txt, a .json or one of {', '.join(CLASS_LISTS)}")
    return _read_class_file(file)


def _read_class_file(file: Path) -> tuple[str, ...]:
    if file.suffix == ".json":
        names = read_json(file)
        if isinstance(names, dict) and sorted(map(str, names.values())) == sorted(map(str, range(len(names)))):
            names = sorted(names, key=lambda name: int(names[name]))
    else:
        return read_names(file)
    are_names = isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)
    if not are_names or len(set(names)) < len(names):
        raise DataError(
            f"{file}: found {excerpt(names)}, expected different class names: one per line, or as JSON a list of names "
            "or a mapping from names to the ids from 0"
        )
    return tuple(names)
