"""Pack labelled images into tar shards that `data_pipelines.datasets.shards` and webdataset read."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.datasets.shard_index import require_webdataset
from data_pipelines.io.atomic import atomic_files, write_text
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import IMAGE_SUFFIXES, is_image
from data_pipelines.io.progress import progress


def write_shards(manifest: VideoManifest, folder: Path, name: str, shard_bytes: float = 5e8) -> list[Path]:
    """Pack images, byte for byte, into ``folder``/``name``-000000.tar and so on, and write classes.txt next to them.

    The images are in a random order that depends only on their number. Training here does not need one, but other
    programs that stream the shards do. The shards appear when all are complete; an interrupted call starts again.

    Args:
        manifest: the images.
        folder: created if necessary.
        name: start of the shards' names, such as train.
        shard_bytes: a new shard begins when the current one reaches this size.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: a file is not an image, or such shards exist.
        MissingDataError: a file cannot be read.
    """
    if existing := sorted(folder.glob(f"{name}-*.tar")):
        raise DataError(
            f"{existing[0]}: found {len(existing)} existing shards, expected none; remove them or use another folder"
        )
    for path in manifest.paths:
        if not is_image(path) or os.path.isdir(path):
            raise DataError(f"{path}: expected an image ({', '.join(IMAGE_SUFFIXES)}); shards contain nothing else")
    prefix = f".{name}-shards-"
    for remains in folder.glob(f"{prefix}*"):  # of a call that was killed; there may be many gigabytes
        shutil.rmtree(remains, ignore_errors=True)
    with atomic_files(folder, prefix) as temporary:
        order = np.random.default_rng(0).permutation(len(manifest))
        with _shard_writer(temporary, name, shard_bytes) as writer:
            for number, index in enumerate(progress(order, desc=f"packing {name}", unit="image")):
                writer.write(_sample(manifest, int(index), number))
        shards = [folder / file.name for file in sorted(temporary.iterdir())]
        write_text(folder / "classes.txt", "".join(f"{class_name}\n" for class_name in manifest.class_names))
    return shards


def _shard_writer(folder: Path, name: str, shard_bytes: float) -> Any:
    """Return webdataset's writer of ``folder``/``name``-%06d.tar."""
    open_shard = ExitStack()

    def open_file(path: str) -> BinaryIO:  # webdataset itself would run some file names as shell commands
        return open_shard.enter_context(open(path, "wb"))

    return require_webdataset().ShardWriter(
        f"{folder / name}".replace("%", "%%") + "-%06d.tar",
        maxcount=2**31,
        maxsize=shard_bytes,
        verbose=0,
        opener=open_file,
        post=lambda _: open_shard.close(),
        encoder=False,
        compress=False,
        mtime=0,
        format="PAX_FORMAT",
    )


def _sample(manifest: VideoManifest, index: int, number: int) -> dict[str, str | bytes]:
    """Return webdataset's sample of an image.

    Its key consists of the class, a number that makes it unique, and the file name, without dots: webdataset takes
    everything after the first one for the suffix.
    """
    path, label = manifest.paths[index], int(manifest.labels[index])
    stem, suffix = os.path.splitext(os.path.basename(path))
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise MissingDataError(f"{path}: cannot be read ({error.strerror})") from None
    key = f"{manifest.class_names[label]}/{number:08d}_{stem}".replace(".", "_")
    return {"__key__": key, suffix[1:].lower(): content, "cls": str(label).encode()}
