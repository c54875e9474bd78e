"""Indices of tar shards: where each image lies in its shard, and its label."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.io.atomic import atomic_write
from data_pipelines.io.cores import num_workers
from data_pipelines.io.errors import DataError, first_line
from data_pipelines.io.json_files import parse_json
from data_pipelines.io.listing import IMAGE_SUFFIXES, is_hidden
from data_pipelines.io.npz_files import READ_ERRORS, open_npz
from data_pipelines.io.processes import end_with_parent, process_pool
from data_pipelines.io.progress import progress
from data_pipelines.io.text import ENCODING

INDEX_FOLDER, INDEX_VERSION = ".index", 1
LABEL_SUFFIXES = ("cls", "json", "txt")  # by precedence; a .txt next to another label may be a caption
MAX_LABEL_BYTES = 2**20
MAX_LABEL = 2**31
MAX_SERIAL_SHARDS = 8  # new shards that are scanned in this process; more are shared among processes
MAX_PROCESSES = 16
SEPARATOR = "\0"  # between names; names in a tar cannot contain it
END_OF_ARCHIVE = bytes(tarfile.BLOCKSIZE)


@dataclass
class ShardIndex:
    """The n images of a shard.

    Attributes:
        offsets, sizes: the image's bytes in the shard, int64 (n,) each.
        labels: int64 (n,).
        names: names of the n members, joined by `SEPARATOR` into one string, which is smaller than n objects.
        num_ignored: the number of other members.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    names: str
    num_ignored: int

    def member_names(self) -> list[str]:
        return self.names.split(SEPARATOR)


def load_indices(shards: Sequence[str]) -> list[ShardIndex]:
    """The index of each shard: the stored one if it is current, else a new one, which is stored.

    Raises:
        DataError: as `scan_shard`.
    """
    indices = {shard: read_index(shard) for shard in shards}
    new = [shard for shard, index in indices.items() if index is None]
    with ExitStack() as stack:
        created: Iterable[ShardIndex] = map(create_index, new)
        if len(new) > MAX_SERIAL_SHARDS:  # ImageNet-21k takes one core a quarter of an hour
            pool = stack.enter_context(process_pool(min(num_workers(), MAX_PROCESSES), initializer=end_with_parent))
            created = pool.map(create_index, new)
        bar = progress(created, desc="scanning shards", total=len(new), unit="shard", disable=not new)
        indices |= dict(zip(new, bar, strict=True))
    return [index for index in indices.values() if index is not None]


def index_file(shard: str) -> Path:
    """Where the index of a shard is stored."""
    folder, name = os.path.split(shard)
    return Path(folder, INDEX_FOLDER, f"{name}.npz")


def read_index(shard: str) -> ShardIndex | None:
    """The stored index of a shard; None if there is none, it is unreadable, or the shard has changed since."""
    try:
        with open_npz(index_file(shard)) as arrays:
            if not np.array_equal(arrays["stamp"], _stamp(shard)):
                return None
            names = arrays["names"].tobytes().decode(*ENCODING)
            index = ShardIndex(arrays["offsets"], arrays["sizes"], arrays["labels"], names, int(arrays["ignored"]))
            return index if _is_plausible(index) else None
    except READ_ERRORS:
        return None


def _is_plausible(index: ShardIndex) -> bool:
    """Whether an index of unknown origin has the types and shapes of one that this module wrote."""
    columns, num_images = (index.offsets, index.sizes, index.labels), len(index.member_names())
    return all(column.dtype == np.int64 and column.shape == (num_images,) and column.min() >= 0 for column in columns)


def create_index(shard: str) -> ShardIndex:
    """Scan a shard and store its index, unless the folder is read-only."""
    stamp, index = _stamp(shard), scan_shard(shard)
    arrays = {
        "stamp": stamp,
        "offsets": index.offsets,
        "sizes": index.sizes,
        "labels": index.labels,
        "names": np.frombuffer(index.names.encode(*ENCODING), np.uint8),
        "ignored": np.array(index.num_ignored),
    }
    try:
        with atomic_write(index_file(shard)) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
    except OSError:
        pass  # the next run scans the shard again
    return index


def _stamp(shard: str) -> np.ndarray:
    """Values that differ when the shard has changed."""
    status = os.stat(shard)
    return np.array([INDEX_VERSION, status.st_size, status.st_mtime_ns], np.int64)


def scan_shard(shard: str) -> ShardIndex:
    """Read all headers and labels of a shard.

    Raises:
        DataError: the shard is damaged or compressed, contains no image, or a sample has no label or several images.
    """
    with _tar_errors(shard):
        return _index_of(shard, _read_samples(shard))


@contextmanager
def _tar_errors(shard: str) -> Iterator[None]:
    """Raise what the tarfile module raises for damaged and hostile files as DataError."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{shard}: cannot be read: {error.strerror or error}") from None
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise DataError(f"{shard}: not an uncompressed tar: {first_line(error)}") from None


def _index_of(shard: str, samples: Iterable[_Sample]) -> ShardIndex:
    images: list[_Image] = []
    labels: list[int] = []
    num_ignored = 0
    for sample in samples:
        if not sample.images:
            num_ignored += sample.num_others + len(sample.labels)
            continue
        image, label = sample.images[0], sample.label()
        if len(sample.images) > 1:
            raise DataError(f"{shard}: {image.name} and {sample.images[1].name} are one sample, expected one image")
        if label is None:
            raise DataError(
                f"{shard}: {image.name} has no label, expected an integer in {sample.key}.cls or {sample.key}.txt, or "
                f'under "label" in {sample.key}.json'
            )
        images.append(image)
        labels.append(label)
        num_ignored += sample.num_others
    if not images:
        raise DataError(f"{shard}: found no image, expected members that end in {', '.join(IMAGE_SUFFIXES)}")
    return ShardIndex(
        offsets=np.array([image.offset for image in images], np.int64),
        sizes=np.array([image.size for image in images], np.int64),
        labels=np.array(labels, np.int64),
        names=SEPARATOR.join(image.name for image in images),
        num_ignored=num_ignored,
    )


@dataclass
class _Image:
    offset: int
    size: int
    name: str


@dataclass
class _Sample:
    """Consecutive members with the same name up to the first dot."""

    key: str | None = None
    images: list[_Image] = field(default_factory=list)
    labels: dict[str, int | None] = field(default_factory=dict)  # by suffix
    num_others: int = 0

    def label(self) -> int | None:
        return next((self.labels[suffix] for suffix in LABEL_SUFFIXES if self.labels.get(suffix) is not None), None)


def _read_samples(shard: str) -> Iterator[_Sample]:
    """Group members by webdataset's rules."""
    split_name = require_webdataset().tariterators.base_plus_ext
    sample = _Sample()
    for member, tar in _read_members(shard):
        key, suffix = split_name(member.name)
        if key != sample.key:
            yield sample
            sample = _Sample(key)
        suffix = (suffix or "").lower()
        is_contiguous = not member.issparse()  # the bytes of other members cannot be read by offset and size
        if key is not None and f".{suffix}" in IMAGE_SUFFIXES and is_contiguous:
            sample.images.append(_Image(member.offset_data, member.size, member.name))
        elif key is not None and suffix in LABEL_SUFFIXES and member.size <= MAX_LABEL_BYTES:
            content = tar.extractfile(member)
            assert content is not None  # a regular file
            sample.labels[suffix] = _parse_label(suffix, content.read())
        else:
            sample.num_others += 1
    yield sample


def _read_members(shard: str) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The regular files of a complete, uncompressed tar, except hidden ones."""
    if not os.path.isfile(shard):  # a pipe blocks forever
        raise DataError(f"{shard}: cannot be read: not a regular file")
    with open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.size < 0 or tar.offset < member.offset_data or SEPARATOR in member.name:
                raise DataError(f"{shard}: damaged at byte {member.offset}, expected a complete tar")
            if member.isreg() and not is_hidden(os.path.basename(member.name)):
                yield member, tar
        # tarfile takes a damaged header for the end of the archive.
        if _read_block(file, tar.offset) != END_OF_ARCHIVE:
            raise DataError(f"{shard}: damaged or truncated at byte {tar.offset}, expected a complete tar")


def _read_block(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read(tarfile.BLOCKSIZE)


def _parse_label(suffix: str, content: bytes) -> int | None:
    """The integer in a label file; None if it contains anything else."""
    if suffix != "json":
        return int(content) if re.fullmatch(rb"\s*\d{1,9}\s*", content) else None
    try:
        parsed = parse_json(content, "label")
    except DataError:
        return None
    label = parsed.get("label") if isinstance(parsed, dict) else None
    if not isinstance(label, int) or isinstance(label, bool):
        return None
    return label if 0 <= label < MAX_LABEL else None


def require_webdataset() -> Any:
    """The webdataset module; DataError if it is not installed."""
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise DataError(f"shards: webdataset cannot be imported ({error}); pip install 'lookupvivit[shards]'") from None
    return webdataset
