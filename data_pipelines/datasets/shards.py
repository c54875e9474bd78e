"""Labelled pictures in tar shards as webdataset has them, for sets too large for a file each:

    root/
      train-000000.tar, train-000001.tar, ...
        n01440764/10026.jpg       a picture; the members of a sample stand together and are called alike up to the dot
        n01440764/10026.cls       its label: a whole number in a .cls or .txt, or under "label" in a .json
      val-000000.tar, ...
      classes.txt                 names of the classes in the order of their ids; or classes.json, or none

A shard is looked through once, and where its pictures lie is kept beside it in `.index/`. From then on a picture is
read from its place, in any order: training, resuming and testing from shards keep the whole contract of
`data_pipelines.loader`, which a stream could not. The shards must therefore lie on a disk, uncompressed.

Nothing but pictures and labels is ever read. Other members, pickles among them, are counted as ignored.
"""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.datasets.class_names import LISTS, class_names
from data_pipelines.datasets.manifest import ENCODING, PathList, VideoManifest
from data_pipelines.io.atomic import atomic_write
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import IMAGE_SUFFIXES
from data_pipelines.io.progress import progress
from data_pipelines.io.tar_paths import TarMember

INDEX_FOLDER, INDEX_VERSION = ".index", 1
LABELS = ("cls", "json", "txt")  # the first that a sample has counts; a .txt may be a caption beside it
LARGEST_LABEL = 2**20  # bytes
AT_ONCE = 8  # new shards that are not worth other processes
AT_A_TIME = 16  # at most
SEPARATOR = "\0"  # no name in a tar has it
END = bytes(tarfile.BLOCKSIZE)  # a whole tar ends with zeros


def read_shards(root: str | os.PathLike[str], pattern: str, names: Sequence[str]) -> VideoManifest:
    """The pictures of the shards that ``pattern`` means, in the order of the shards' names and of their members.

    Args:
        root: folder that the pattern starts from.
        pattern: braces as webdataset has them, ``train-{000000..001281}.tar``, of which all must exist, or a
            wildcard, ``*train*.tar``.
        names: of the classes, in the order of their ids.

    Raises:
        DataError: webdataset cannot be imported, a tar is damaged or compressed, or a picture has no label, or one
            that is no class.
        MissingDataError: no such shard.
    """
    shards = find_shards(root, pattern)
    found = _indices(shards)
    for shard, index in zip(shards, found, strict=True):
        if len(index.labels) and index.labels.max() >= len(names):
            worst = int(index.labels.argmax())
            raise DataError(
                f"{shard}: {index.names.split(SEPARATOR)[worst]} has the label {index.labels[worst]}, must be below "
                f"{len(names)}, the number of classes"
            )
    paths = (
        str(TarMember(shard, *place))
        for shard, index in zip(shards, found, strict=True)
        for place in zip(index.offsets.tolist(), index.sizes.tolist(), index.names.split(SEPARATOR), strict=True)
    )
    labels = np.concatenate([index.labels for index in found])
    ignored = sum(index.ignored for index in found)
    return VideoManifest(PathList(paths), labels, tuple(names), os.path.join(root, pattern), ignored=ignored)


def find_shards(root: str | os.PathLike[str], pattern: str) -> list[str]:
    """The shards that ``pattern`` means; see `read_shards`."""
    try:
        names = require_webdataset().shardlists.expand_urls(pattern)
    except ValueError as error:  # braces that do not close
        raise DataError(f"{pattern}: no pattern of shards ({error})") from None
    found: list[str] = []
    missing = []
    for name in names:
        path = os.path.join(glob.escape(os.fspath(root)), name)
        there = sorted(glob.glob(path))
        found += there
        if not there:
            missing.append(os.path.join(root, name))
    if missing:
        raise MissingDataError(
            f"{missing[0]}: no such shard ({len(missing)} such); data.train_shards and "
            "data.val_shards name them, relative to data.root"
        )
    return found


def shard_classes(root: str | os.PathLike[str], class_list: str | None, count: int) -> tuple[str, ...]:
    """Names of the classes in the order of their ids.

    Args:
        root: folder that ``class_list`` is relative to.
        class_list: one of `data_pipelines.datasets.class_names.LISTS`; a text of one name a line; or a JSON list of
            names, or
            mapping of names to ids. None is classes.txt or classes.json in ``root`` where there is one, else numbers.
        count: how many numbers.

    Raises:
        MissingDataError: no such file.
        DataError: a file of another kind.
    """
    if class_list in LISTS:
        return class_names(class_list)
    usual = [Path(root) / name for name in ("classes.txt", "classes.json")]
    file = next(filter(Path.is_file, usual), None) if class_list is None else Path(root) / class_list
    if file is None:
        return tuple(map(str, range(count)))
    if not file.is_file():
        raise MissingDataError(f"{file}: no such file; data.class_list is a .txt, a .json or one of {', '.join(LISTS)}")
    try:
        text = file.read_text(encoding="utf-8")
        names = json.loads(text) if file.suffix == ".json" else text.splitlines()
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError among them
        raise DataError(f"{file}: no list of classes ({error})") from None
    if isinstance(names, dict) and sorted(map(str, names.values())) == sorted(map(str, range(len(names)))):
        names = sorted(names, key=lambda name: int(names[name]))
    right = isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)
    if not right or len(set(names)) < len(names):
        raise DataError(
            f"{file}: no list of classes; must hold each class's name once, a line each, or as JSON a list "
            "of names or a mapping of names to the ids from 0 on"
        )
    return tuple(names)


@dataclass
class ShardIndex:
    """Where the n pictures of a shard lie, int64 (n,) each.

    Attributes:
        names: of the pictures, in one text with `SEPARATOR` between them: a million objects less.
        ignored: how many other members there are.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    names: str
    ignored: int


def index_file(shard: str) -> Path:
    """Where the index of a shard is kept."""
    folder, name = os.path.split(shard)
    return Path(folder, INDEX_FOLDER, f"{name}.npz")


def _indices(shards: list[str]) -> list[ShardIndex]:
    """The index of every shard: what was kept beside it, else a new one."""
    found = {shard: kept_index(shard) for shard in shards}
    new = [shard for shard, index in found.items() if index is None]
    with ExitStack() as stack:
        jobs = map(new_index, new)
        if len(new) > AT_ONCE:  # a quarter of an hour of one core for ImageNet-21k
            spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in an unknown state
            cores = min(len(os.sched_getaffinity(0)), AT_A_TIME)
            jobs = stack.enter_context(ProcessPoolExecutor(cores, spawn)).map(new_index, new)
        for shard, index in zip(
            new,
            progress(jobs, desc="looking through shards", total=len(new), unit="shard", disable=not new),
            strict=True,
        ):
            found[shard] = index
    return [found[shard] for shard in shards]


def _stamp(shard: str) -> np.ndarray:
    """What changes when the shard does."""
    facts = os.stat(shard)
    return np.array([INDEX_VERSION, facts.st_size, facts.st_mtime_ns], np.int64)


def kept_index(shard: str) -> ShardIndex | None:
    """The index beside a shard, if there is one and the shard has not changed since."""
    try:
        with np.load(index_file(shard), allow_pickle=False) as kept:
            if np.array_equal(kept["stamp"], _stamp(shard)):
                names = kept["names"].tobytes().decode(*ENCODING)
                return ShardIndex(kept["offsets"], kept["sizes"], kept["labels"], names, int(kept["ignored"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # none yet, or damaged
    return None


def new_index(shard: str) -> ShardIndex:
    """Look through a shard, and keep what was found beside it where that folder can be written to."""
    file, stamp, found = index_file(shard), _stamp(shard), look_through(shard)
    names = np.frombuffer(found.names.encode(*ENCODING), np.uint8)
    try:
        with atomic_write(file) as temporary:
            np.savez(
                temporary,
                stamp=stamp,
                offsets=found.offsets,
                sizes=found.sizes,
                labels=found.labels,
                names=names,
                ignored=found.ignored,
            )
    except OSError:
        pass  # the next run looks again
    return found


@dataclass
class _Sample:
    """What is known of the members that are called alike."""

    key: str | None = None
    pictures: list[tuple[int, int, str]] = field(default_factory=list)  # offset, size, name
    labels: dict[str, int | None] = field(default_factory=dict)
    others: int = 0

    def label(self) -> int | None:
        return next((self.labels[kind] for kind in LABELS if self.labels.get(kind) is not None), None)


def look_through(shard: str) -> ShardIndex:
    """Read every header of a shard, and its labels.

    Raises:
        DataError: it is damaged or compressed, holds no picture, or a picture without a label or beside another.
    """
    places: list[tuple[int, int, str]] = []
    labels, ignored = [], 0
    for sample in _samples(shard):
        if not sample.pictures:
            ignored += sample.others + len(sample.labels)
            continue
        name, label = sample.pictures[0][2], sample.label()
        if len(sample.pictures) > 1:
            raise DataError(f"{shard}: {name} and {sample.pictures[1][2]} are one sample, must be one picture each")
        if label is None:
            raise DataError(
                f"{shard}: {name} has no label; must have a whole number in {sample.key}.cls or .txt, or "
                f'under "label" in {sample.key}.json'
            )
        places.append(sample.pictures[0])
        labels.append(label)
        ignored += sample.others
    if not places:
        raise DataError(f"{shard}: holds no picture ({', '.join(IMAGE_SUFFIXES)})")
    offsets, sizes, names = zip(*places, strict=True)
    arrays = (np.array(values, np.int64) for values in (offsets, sizes, labels))
    return ShardIndex(*arrays, SEPARATOR.join(names), ignored)


def _samples(shard: str) -> Iterator[_Sample]:
    """Runs of members of the same key, as webdataset cuts names and groups them."""
    split = require_webdataset().tariterators.base_plus_ext
    sample = _Sample()
    for member, file in _files(shard):
        key, suffix = split(member.name)
        if key != sample.key:
            yield sample
            sample = _Sample(key)
        suffix = (suffix or "").lower()
        if key is not None and f".{suffix}" in IMAGE_SUFFIXES:
            sample.pictures.append((member.offset_data, member.size, member.name))
        elif key is not None and suffix in LABELS and member.size <= LARGEST_LABEL:
            sample.labels[suffix] = _label(suffix, file.extractfile(member).read())
        else:
            sample.others += 1
    yield sample


def _files(shard: str) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The regular files of a tar that is whole."""
    try:
        with open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg():
                    yield member, tar
            if _block(file, tar.offset) != END:  # tarfile takes a damaged header for the end
                raise DataError(f"{shard}: damaged or cut off at byte {tar.offset}, must be a whole tar")
    except tarfile.TarError as error:
        raise DataError(f"{shard}: cannot be read as an uncompressed tar ({error})") from None
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror or error})") from None


def _block(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(tarfile.BLOCKSIZE)


def _label(kind: str, content: bytes) -> int | None:
    """The whole number that a label file holds, if it does."""
    if kind == "json":
        try:
            told = json.loads(content)
        except (ValueError, RecursionError):
            return None
        label = told.get("label") if isinstance(told, dict) else None
        return label if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 2**31 else None
    return int(content) if re.fullmatch(rb"\s*\d{1,9}\s*", content) else None


def require_webdataset() -> Any:
    """The library; DataError where it is not installed."""
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise DataError(f"data.dataset: shards need webdataset ({error}); pip install 'lookupvivit[shards]'") from None
    return webdataset
