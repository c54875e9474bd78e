"""Class folders, or any other labelled pictures, packed into tar shards that `data_pipelines.datasets.shards` reads."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.datasets.shards import require_webdataset
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import IMAGE_SUFFIXES
from data_pipelines.io.progress import progress


def write_shards(manifest: VideoManifest, folder: Path, name: str, shard_bytes: float = 5e8) -> list[Path]:
    """Pack pictures, byte for byte, into ``folder``/``name``-000000.tar and so on, and classes.txt beside them.

    They come in an order that is shuffled once and the same every time: training here needs none, but who streams the
    shards does. Shards appear when all are written; a call that was interrupted is made again from its beginning.

    Args:
        manifest: pictures.
        folder: is made where it is not.
        name: what the shards are called, such as train.
        shard_bytes: a shard that has reached this size is the last picture's.

    Raises:
        DataError: one is no picture, or there are such shards already.
        MissingDataError: one that cannot be read.
    """
    if there := sorted(folder.glob(f"{name}-*.tar")):
        raise DataError(f"{there[0]}: is there already; remove the {len(there)} such shards, or choose another folder")
    for path in manifest.paths:
        if not path.lower().endswith(IMAGE_SUFFIXES) or os.path.isdir(path):
            raise DataError(f"{path}: is no picture ({', '.join(IMAGE_SUFFIXES)}), and shards hold nothing else")
    beside = folder / f".{name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    opened = ExitStack()  # the shard being written; ours to open, as webdataset takes some names for commands

    def start(path: str) -> BinaryIO:
        return opened.enter_context(open(path, "wb"))

    pattern = f"{beside / name}".replace("%", "%%") + "-%06d.tar"
    writer = require_webdataset().ShardWriter(
        pattern,
        maxcount=2**31,
        maxsize=shard_bytes,
        verbose=0,
        opener=start,
        post=lambda _: opened.close(),
        encoder=False,
        compress=False,
        mtime=0,
        format="PAX_FORMAT",
    )
    order = np.random.default_rng(0).permutation(len(manifest))
    with writer:
        for number, index in enumerate(progress(order, desc=f"packing {name}", unit="picture")):
            writer.write(_sample(manifest, int(index), number))
    (folder / "classes.txt").write_text("".join(f"{one}\n" for one in manifest.class_names), encoding="utf-8")
    shards = [folder / file.name for file in sorted(beside.iterdir())]
    for shard in shards:
        os.replace(beside / shard.name, shard)
    beside.rmdir()
    return shards


def _sample(manifest: VideoManifest, index: int, number: int) -> dict[str, str | bytes]:
    """Named after class and file; the number keeps neighbours apart, and no dot but the last may be in a name."""
    path, label = manifest.paths[index], int(manifest.labels[index])
    stem, suffix = os.path.splitext(os.path.basename(path))
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise MissingDataError(f"{path}: cannot be read ({error.strerror})") from None
    key = f"{manifest.class_names[label]}/{number:08d}_{stem}".replace(".", "_")
    return {"__key__": key, suffix[1:].lower(): content, "cls": str(label).encode()}
