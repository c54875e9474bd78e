"""From a configuration to loaders: the only place that knows which data set a run uses."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Container
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from data_pipelines.datasets.class_names import class_names, describe_classes
from data_pipelines.datasets.clips import ClipDataset, MultiViewDataset
from data_pipelines.datasets.kinetics import listed_classes, read_kinetics
from data_pipelines.datasets.manifest import VideoManifest, on_disk, skip
from data_pipelines.loader import TrainingOrder, eval_loader
from data_pipelines.preprocess import Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.clip_transforms import TrainTransform
from data_pipelines.video.backends import require_backend
from lookupvivit import experiments
from lookupvivit.config import ConfigError, DataConfig, RunConfig
from lookupvivit.training.distributed import World

if TYPE_CHECKING:
    from data_pipelines.datasets.camera_motion import Recipe


def read_manifest(config: RunConfig, split: str, world: World) -> VideoManifest:
    """As `present_videos`, once the data set is there: camera_motion is rendered where it is not.

    New shards are looked through by the main rank; the others find what it has kept.
    """
    require_backend(config.data.backend)
    if config.data.dataset == "camera_motion":
        from data_pipelines.datasets.camera_motion import prepare

        if world.is_main:
            prepare(Path(config.data.root), camera_motion_recipe(config))
        world.barrier()
    takes_turns = config.data.dataset == "shards"  # the main rank writes the index that the others read
    if takes_turns and not world.is_main:
        world.barrier()
    found = present_videos(config, split, world.is_main)
    if takes_turns and world.is_main:
        world.barrier()
    _require_same_everywhere(found, split, world)
    return found


def _require_same_everywhere(found: VideoManifest, split: str, world: World) -> None:
    """Collective: ConfigError where ranks found other videos, as on machines whose local disks differ.

    Ranks share out the videos by number: with other lists they would train on some twice and on others never.
    """
    listed = hashlib.blake2b(found.labels.tobytes(), digest_size=6)
    for path in found.paths:  # one by one: there may be millions
        listed.update(f"{path}\n".encode(errors="surrogateescape"))
    own = int.from_bytes(listed.digest(), "big")
    count, main = world.from_main(len(found)), world.from_main(own)
    if not world.any(own != main):
        return
    what = f"not every rank found the {count} videos of rank 0"
    if own != main:
        who = f"rank {world.rank} on {socket.gethostname()}"
        what = f"{who} found {len(found)} videos, which are not the {count} of rank 0"
    raise ConfigError(f"data.root: {what} ({split}, {found.source}); every machine must see the same files")


def present_videos(config: RunConfig, split: str, tell: bool = True) -> VideoManifest:
    """The labelled videos of ``split`` ("train" or "val"), as far as they are on disk and not in ``data.skip_list``."""
    found, note = present(config, listed_videos(config, split))
    if tell:
        what = "pictures" if config.data.frames == 1 else "videos"
        print(f"{split}: {len(found)} {what} from {found.source}{note}")
        print(f"{split}: classes: {describe_classes(found.class_names)}")
    return found


def present(config: RunConfig, listed: VideoManifest) -> tuple[VideoManifest, str]:
    """What of a list is on disk and not in ``data.skip_list``, and what is to be told of the rest."""
    wanted = listed if config.data.skip_list is None else skip(listed, Path(config.data.skip_list))
    found = on_disk(wanted)
    skipped, absent = len(listed) - len(wanted), found.left_out
    note = f", {skipped} left out by {config.data.skip_list}" if skipped else ""
    note += f", {absent} of the {len(listed)} listed files are MISSING and left out" if absent else ""
    note += f", {found.ignored} files or folders that are no videos ignored" if found.ignored else ""
    return found, note


def require_same_classes(train_set: VideoManifest, val_set: VideoManifest) -> None:
    """ConfigError where training and validation do not name the same classes."""
    if train_set.class_names != val_set.class_names:
        raise ConfigError(f"data: {train_set.source} and {val_set.source} do not have the same classes")


def listed_videos(config: RunConfig, split: str) -> VideoManifest:
    """All labelled videos of ``split``, whether their files exist or not."""
    if config.data.dataset in experiments.DATASETS:
        raise ConfigError(
            f"data.dataset: found {config.data.dataset!r}, which has captions and no classes: "
            "tools/train_net.py learns from it, and tools/caption.py tests what was learned"
        )
    data, root = config.data, Path(config.data.root)
    match data.dataset:
        case "kinetics":
            list_file = root / (data.train_list if split == "train" else data.val_list)
            manifest = read_kinetics(list_file, root, data.separator, _kinetics_classes(data, list_file))
        case "ucf101" | "hmdb51":
            from data_pipelines.datasets.ucf101_hmdb51 import read_hmdb51, read_ucf101

            read = read_ucf101 if data.dataset == "ucf101" else read_hmdb51
            manifest = read(root, split, data.fold)
        case "folders":
            from data_pipelines.datasets.class_folders import read_folders

            manifest = read_folders(root, split)
        case "shards":
            from data_pipelines.datasets.shards import read_shards, shard_classes

            pattern = data.train_shards if split == "train" else data.val_shards
            _check_class_count(data, classes := shard_classes(root, data.class_list, data.num_classes), str(root))
            manifest = read_shards(root, pattern, classes)
        case _:
            from data_pipelines.datasets.something_something import read_something_something

            manifest = read_something_something(root, "train" if split == "train" else "validation")
    _check_class_count(data, manifest.class_names, manifest.source)
    return manifest


def _check_class_count(data: DataConfig, names: tuple[str, ...], source: str) -> None:
    if len(names) != data.num_classes:
        raise ConfigError(
            f"data.num_classes: found {data.num_classes}, must be {len(names)}, as many classes as {source} has"
        )


def _kinetics_classes(data: DataConfig, list_file: Path) -> tuple[str, ...]:
    """classes.txt beside the list, else the names that ship for 400, 600 and 700 classes, else those that the training
    list holds, or numbers.

    Where there is no training list, as on a machine that only tests, ``list_file`` takes its place.
    """
    file = list_file.with_name("classes.txt")
    if file.is_file():
        return tuple(file.read_text(encoding="utf-8").splitlines())
    if data.num_classes in (400, 600, 700):
        return class_names(f"kinetics{data.num_classes}")
    training = Path(data.root) / data.train_list
    names = listed_classes(training if training.is_file() else list_file)
    return names or tuple(map(str, range(data.num_classes)))


def camera_motion_recipe(config: RunConfig) -> Recipe:
    """What ``data.camera_motion`` asks for; ConfigError for a key that it does not have."""
    from data_pipelines.datasets.camera_motion import Recipe

    known = [entry.name for entry in fields(Recipe)]
    for key in config.data.camera_motion:
        if key not in known:
            raise ConfigError(f"data.camera_motion: no such key {key!r}, it takes {', '.join(known)}")
    return Recipe(**config.data.camera_motion)


def train_dataset(config: RunConfig, manifest: VideoManifest) -> ClipDataset:
    """Randomly placed, augmented clips."""
    data = config.data
    return ClipDataset(
        manifest,
        preprocess_from_config(data).sampling,
        train_transform(config, manifest),
        config.seed,
        data.repeats,
        data.backend,
        data.decode_seconds,
    )


def train_transform(config: RunConfig, manifest: VideoManifest) -> TrainTransform:
    """How clips are cropped and augmented; ConfigError for flips of classes that ``manifest`` does not have."""
    data, augment = config.data, config.augment
    ids = {name: label for label, name in enumerate(manifest.class_names)}
    unknown = [n for pair in augment.flip_labels.items() for n in pair if n not in ids]
    if unknown:
        raise ConfigError(
            f"augment.flip_labels: {unknown[0]!r} is no class of {manifest.source}; set "
            "augment.flip_labels={} where a mirrored video keeps its class"
        )
    swaps = {ids[a]: ids[b] for a, b in augment.flip_labels.items()}
    return TrainTransform(
        crop=data.crop,
        short_side=data.short_side,
        scale_jitter=augment.scale_jitter,
        horizontal_flip=augment.horizontal_flip,
        flip_labels={**swaps, **{b: a for a, b in swaps.items()}},
        color_jitter=augment.color_jitter,
        grayscale=augment.grayscale,
        rand_augment=augment.rand_augment,
        rand_augment_set=augment.rand_augment_set,
        random_resized_crop=augment.random_resized_crop,
        random_erasing=augment.random_erasing,
        random_erasing_mode=augment.random_erasing_mode,
    )


def preprocess_from_config(data: DataConfig) -> Preprocess:
    """The preprocessing that a run tests with; its `Preprocess.to_dict` goes into model.json."""
    sampling = Sampling(data.frames, data.stride, data.target_fps, segments=data.sampling == "segments")
    return Preprocess(sampling, data.short_side, data.crop, data.test_resize)


def view_loader(
    config: RunConfig,
    manifest: VideoManifest,
    clips: int,
    crops: int,
    world: World,
    central: bool = False,
    done: Container[int] = (),
) -> DataLoader:
    """Every video of this rank's share with all its views, from one decode each; ``done`` of `eval_loader`."""
    dataset = multi_view_dataset(config, manifest, clips, crops, central)
    videos = max(1, config.eval.batch_size // len(dataset.clip_index))
    return eval_loader(dataset, world.rank, world.size, videos, config.data.workers, done)


def multi_view_dataset(
    config: RunConfig, manifest: VideoManifest, clips: int, crops: int, central: bool = False
) -> MultiViewDataset:
    """``clips`` x ``crops`` views of every video, and the ``central`` one where they miss it."""
    data = config.data
    return MultiViewDataset(
        manifest, preprocess_from_config(data), clips, crops, data.backend, data.decode_seconds, central
    )


@dataclass(frozen=True)
class Batching:
    """The arithmetic of a global batch: micro_batch x accumulation x world = batch."""

    batch: int
    micro_batch: int
    accumulation: int
    world: int

    @classmethod
    def of(cls, config: RunConfig, world: World) -> Batching:
        """The split that a configuration means on this many ranks; ConfigError where it does not come out even."""
        batch = config.optim.batch_size
        micro = config.optim.micro_batch_size or max(1, batch // world.size)
        accumulation, rest = divmod(batch, micro * world.size)
        if rest or not accumulation:
            raise ConfigError(
                f"optim.batch_size: {batch} clips cannot be shared by {world.size} rank{'s'[: world.size > 1]} in "
                f"micro-batches of {micro}; it must be a multiple of optim.micro_batch_size x ranks"
            )
        repeats = config.data.repeats
        if micro % repeats:
            raise ConfigError(f"data.repeats: {repeats} clips from one decode do not fit into micro-batches of {micro}")
        mixing = [key for key in ("mixup", "cutmix") if getattr(config.augment, key)]
        if mixing and micro == 1:
            raise ConfigError(
                f"augment.{mixing[0]}: micro-batches of 1 clip have nothing to mix; raise "
                f"optim.micro_batch_size to at least 2, or set augment.{mixing[0]}=0"
            )
        return cls(batch, micro, accumulation, world.size)

    def __str__(self) -> str:
        return (
            f"batch {self.batch} = {self.micro_batch} clips x {self.accumulation} accumulation steps x "
            f"{self.world} rank{'s' if self.world > 1 else ''}"
        )


@dataclass(frozen=True)
class Plan:
    """How long a run is, in optimizer steps."""

    steps_per_epoch: int
    total: int
    warmup: int

    @classmethod
    def of(cls, config: RunConfig, order: TrainingOrder) -> Plan:
        """Epochs turned into steps; ``optim.max_steps`` replaces them."""
        per_epoch = order.steps_per_epoch
        total = config.optim.max_steps or max(1, round(config.optim.epochs * per_epoch))
        return cls(per_epoch, total, round(config.optim.warmup_epochs * per_epoch))

    def due(self, step: int, every_epochs: float) -> bool:
        """Whether what is done every ``every_epochs`` (0: never) epochs is due after ``step`` steps; the end counts."""
        if not every_epochs:
            return False
        return step == self.total or step % max(1, round(every_epochs * self.steps_per_epoch)) == 0
