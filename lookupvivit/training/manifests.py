"""Which videos a run uses: from ``data.dataset`` to the videos of a split.

`listed_videos` reads the dataset's own lists, `present_videos` excludes what is skipped or missing, and `read_manifest`
does this on all ranks.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.datasets.class_folders import UnsplitFoldersError, read_split_folders, read_unsplit_folders
from data_pipelines.datasets.class_names import class_names, describe_classes
from data_pipelines.datasets.group_split import split_by_group
from data_pipelines.datasets.kinetics import read_csv_classes, read_kinetics
from data_pipelines.datasets.manifest import VideoManifest, exclude_listed, exclude_missing
from data_pipelines.datasets.shards import read_shard_classes, read_shards
from data_pipelines.datasets.something_something import read_something_something
from data_pipelines.datasets.ucf101_hmdb51 import read_hmdb51, read_ucf101
from data_pipelines.io.errors import DataError
from data_pipelines.io.text import one_line, read_names
from data_pipelines.video.backends import require_backend
from lookupvivit.config import ConfigError, DataConfig, RunConfig
from lookupvivit.training.distributed import World

if TYPE_CHECKING:
    from data_pipelines.datasets.camera_motion import Recipe


MAX_EMPTY_CLASSES = 5  # that are printed by name


@contextmanager
def prefix_data_errors(prefix: str) -> Iterator[None]:
    """Prefix the DataErrors of a ``with`` block with a configuration key, which data_pipelines does not know."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"{prefix}{error}") from None


# ----------------------------------------------------------------------------------------------------------------------
# Readers: all labelled videos of a split ("train" or "val"), whether their files exist or not


def _read_kinetics(data: DataConfig, split: str) -> VideoManifest:
    root = Path(data.root)
    list_file = root / (data.train_list if split == "train" or data.val_fraction else data.val_list)
    return read_kinetics(list_file, root, data.separator, _kinetics_classes(data, list_file))


def _kinetics_classes(data: DataConfig, list_file: Path) -> tuple[str, ...]:
    """Class names of a Kinetics list, from the first source that exists.

    These are classes.txt next to the list; the official names of 400, 600 and 700 classes; the names in the training
    list (or in ``list_file``, on a machine that only tests); and numbers.
    """
    file = list_file.with_name("classes.txt")
    if file.is_file():
        return read_names(file)
    if data.num_classes in (400, 600, 700):
        return class_names(f"kinetics{data.num_classes}")
    train_list = Path(data.root) / data.train_list
    names = read_csv_classes(train_list if train_list.is_file() else list_file)
    return names or tuple(map(str, range(_num_classes(data))))


def _read_ucf101(data: DataConfig, split: str) -> VideoManifest:
    return read_ucf101(data.root, split, data.fold)


def _read_hmdb51(data: DataConfig, split: str) -> VideoManifest:
    return read_hmdb51(data.root, split, data.fold)


def _read_folders(data: DataConfig, split: str) -> VideoManifest:
    if data.val_fraction is None:
        try:
            return read_split_folders(data.root, split)
        except UnsplitFoldersError as error:
            raise UnsplitFoldersError(f"{error}, unless data.val_fraction is set, such as to 0.2") from None
    with prefix_data_errors("data.val_fraction: "):
        return read_unsplit_folders(data.root)


def _read_shards(data: DataConfig, split: str) -> VideoManifest:
    with prefix_data_errors("data.class_list: "):
        names = read_shard_classes(data.root, data.class_list, _num_classes(data))
    _require_num_classes(data, names, data.root)  # before the shards are indexed, which may take minutes
    key = "train_shards" if split == "train" else "val_shards"
    with prefix_data_errors(f"data.{key}: "):
        return read_shards(data.root, getattr(data, key), names)


def _read_something_something(data: DataConfig, split: str) -> VideoManifest:
    return read_something_something(data.root, "train" if split == "train" else "validation")


READERS: dict[str, Callable[[DataConfig, str], VideoManifest]] = {
    "kinetics": _read_kinetics,
    "something_something": _read_something_something,
    "ucf101": _read_ucf101,
    "hmdb51": _read_hmdb51,
    "folders": _read_folders,
    "shards": _read_shards,
    "camera_motion": _read_something_something,  # rendered in the layout of Something-Something
}


def listed_videos(config: RunConfig, split: str) -> VideoManifest:
    """All labelled videos of ``split``, whether their files exist or not.

    Args:
        config: ``data`` says which dataset.
        split: "train" or "val".

    Raises:
        ConfigError: the dataset has captions instead of classes, or another number of classes than configured.
        DataError: the lists cannot be read.
    """
    data = config.data
    if data.dataset not in READERS:
        raise ConfigError(
            f"data.dataset: found {data.dataset!r}, which has captions, expected one with classes: "
            f"{', '.join(READERS)}; captioning runs are trained by tools/train_net.py and tested by tools/caption.py"
        )
    manifest = READERS[data.dataset](data, split)
    if data.val_fraction is not None:
        with prefix_data_errors("data.val_fraction: "):
            manifest = split_by_group(manifest, data.val_fraction)[split]
    _require_num_classes(data, manifest.class_names, manifest.source)
    return manifest


def _num_classes(data: DataConfig) -> int:
    assert data.num_classes is not None  # DataConfig requires it of datasets with classes
    return data.num_classes


def _require_num_classes(data: DataConfig, names: tuple[str, ...], source: str) -> None:
    if len(names) != data.num_classes:
        raise ConfigError(
            f"data.num_classes: found {data.num_classes}, expected {len(names)}, the number of classes in {source}"
        )


# ----------------------------------------------------------------------------------------------------------------------
# The videos that a run uses


def read_manifest(config: RunConfig, split: str, world: World) -> VideoManifest:
    """The videos of ``split`` that exist and are not skipped, the same on every rank; collective.

    A camera_motion dataset is rendered first if it is incomplete. The index of new shards is written by rank 0, before
    the other ranks read it.

    Raises:
        ConfigError, DataError: as `present_videos`, or the ranks found different videos.
    """
    data = config.data
    with prefix_data_errors("data.backend: "):
        require_backend(data.backend)
    if data.dataset == "camera_motion":
        if world.is_main:
            render_camera_motion(config)
        world.barrier()
    main_first = data.dataset == "shards"
    if main_first and not world.is_main:
        world.barrier()
    manifest = present_videos(config, split, verbose=world.is_main)
    if main_first and world.is_main:
        world.barrier()
    _require_same_on_every_rank(manifest, split, world)
    return manifest


def present_videos(config: RunConfig, split: str, verbose: bool = True) -> VideoManifest:
    """The videos of ``split`` ("train" or "val") that exist and are not in ``data.skip_list``.

    Args:
        verbose: print their number, classes, and what was excluded.
    """
    manifest, note = exclude_absent(config, listed_videos(config, split))
    if verbose:
        selection = f", {manifest.selection}" if manifest.selection else ""
        print(f"{split}: {len(manifest)} {manifest.unit}s from {manifest.source}{selection}{note}")
        print(f"{split}: classes: {describe_classes(manifest.class_names)}")
        if split == "train" and (empty := manifest.empty_classes()):
            examples = ", ".join(empty[:MAX_EMPTY_CLASSES]) + (", ..." if len(empty) > MAX_EMPTY_CLASSES else "")
            print(f"train: {len(empty)} classes WITHOUT a training video: {one_line(examples)}")
    return manifest


def exclude_absent(config: RunConfig, listed: VideoManifest) -> tuple[VideoManifest, str]:
    """Exclude the videos in ``data.skip_list`` and those without a file.

    Returns:
        The remaining videos, and the numbers of the others as text to append to a message.
    """
    not_skipped = listed
    if config.data.skip_list is not None:
        with prefix_data_errors("data.skip_list: "):
            not_skipped = exclude_listed(listed, Path(config.data.skip_list))
    present = exclude_missing(not_skipped)
    notes = []
    if config.data.skip_list is not None:
        notes.append(f"{len(listed) - len(not_skipped)} skipped by {config.data.skip_list}")
    if present.num_missing:
        notes.append(f"{present.num_missing} of the {len(listed)} listed files are MISSING and excluded")
    if present.num_ignored:
        notes.append(f"{present.num_ignored} other files or folders ignored")
    return present, "".join(f", {note}" for note in notes)


def _require_same_on_every_rank(manifest: VideoManifest, split: str, world: World) -> None:
    """Raise a ConfigError if the machines see different files; collective.

    Ranks share the videos by index: with different lists, some videos would be used twice and others never.
    """
    digest = hashlib.blake2b(manifest.labels.tobytes(), digest_size=6)
    for path in manifest.paths:  # there may be millions
        digest.update(f"{path}\n".encode(errors="surrogateescape"))
    own = int.from_bytes(digest.digest(), "big")
    main_count, main = world.from_main(len(manifest)), world.from_main(own)
    if not world.any(own != main):
        return
    place = f"({split}, {manifest.source}); every machine must see the same files"
    if own == main:
        raise ConfigError(f"data.root: not every rank found the {main_count} {manifest.unit}s of rank 0 {place}")
    raise ConfigError(
        f"data.root: found {len(manifest)} {manifest.unit}s on rank {world.rank} ({socket.gethostname()}), expected "
        f"the {main_count} of rank 0 {place}"
    )


def render_camera_motion(config: RunConfig) -> None:
    """Render what is missing of the dataset; one process at a time."""
    from data_pipelines.datasets.camera_motion import prepare

    with prefix_data_errors("data.root: "):
        prepare(Path(config.data.root), camera_motion_recipe(config))


def camera_motion_recipe(config: RunConfig) -> Recipe:
    """The recipe in ``data.camera_motion``.

    Raises:
        ConfigError: an unknown key.
    """
    from data_pipelines.datasets.camera_motion import Recipe

    known = [field.name for field in fields(Recipe)]
    for key in config.data.camera_motion:
        if key not in known:
            raise ConfigError(f"data.camera_motion: found an unknown key {key!r}, expected {', '.join(known)}")
    return Recipe(**config.data.camera_motion)
