"""From a configuration and the videos of a split to datasets and loaders."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_pipelines.datasets.clips import ClipDataset, MultiViewDataset
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.loader import TrainingOrder, eval_loader, train_loader
from data_pipelines.transforms.first_half import FirstHalf
from data_pipelines.transforms.train_transform import TrainTransform
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import prefix_data_errors
from lookupvivit.training.schedule import Batching


def train_dataset(config: RunConfig, manifest: VideoManifest) -> ClipDataset:
    """Randomly placed and augmented clips."""
    return ClipDataset(
        manifest,
        config.data.preprocess().sampling,
        train_transform(config, manifest),
        config.seed,
        repeats=config.data.repeats,
        backend=config.data.backend,
        timeout=config.data.decode_seconds,
        max_pixels=config.data.max_pixels,
    )


def micro_batch_loader(
    dataset: ClipDataset, order: TrainingOrder, steps: range, batching: Batching, config: RunConfig, world: World
) -> DataLoader:
    """This rank's micro-batches of these optimizer steps."""
    return train_loader(
        dataset,
        order,
        start_step=steps.start,
        end_step=steps.stop,
        rank=world.rank,
        world_size=world.size,
        micro_batch=batching.micro_batch // config.data.repeats,
        accumulation=batching.accumulation,
        workers=config.data.workers,
    )


def train_transform(config: RunConfig, manifest: VideoManifest) -> TrainTransform | FirstHalf:
    """The cropping and augmentation of training clips, or the half that precedes `augmented_on_device`.

    Raises:
        ConfigError: a class in ``augment.flip_labels`` does not exist.
        DataError: the crop does not fit.
    """
    data, augment = config.data, config.augment
    with prefix_data_errors("data."):
        transform = TrainTransform(
            crop=data.crop,
            short_side=data.short_side,
            scale_jitter=augment.scale_jitter,
            horizontal_flip=augment.horizontal_flip,
            flip_labels=_flip_labels(config, manifest),
            color_jitter=augment.color_jitter,
            grayscale=augment.grayscale,
            rand_augment=augment.rand_augment,
            rand_augment_set=augment.rand_augment_set,
            random_resized_crop=augment.random_resized_crop,
            random_erasing=augment.random_erasing,
            random_erasing_mode=augment.random_erasing_mode,
        )
    return FirstHalf(transform) if augment.on_device else transform


def augmented_on_device(batch: dict[str, Any], dataset: ClipDataset, device: torch.device) -> Tensor:
    """The clips of a batch on ``device``, uint8 (B, 3, T, H, W), with what the loader left of the augmentation."""
    clips = batch["video"].to(device, non_blocking=True)
    return dataset.transform.second_half(clips, batch["rng"]) if isinstance(dataset.transform, FirstHalf) else clips


def _flip_labels(config: RunConfig, manifest: VideoManifest) -> dict[int, int]:
    """Class ids that a horizontal flip exchanges, both ways."""
    ids = {name: label for label, name in enumerate(manifest.class_names)}
    flip_labels: dict[int, int] = {}
    for left, right in config.augment.flip_labels.items():
        for name in (left, right):
            if name not in ids:
                raise ConfigError(
                    f"augment.flip_labels: found {name!r}, expected a class of {manifest.source}; set "
                    "augment.flip_labels={} if a mirrored video keeps its class"
                )
        flip_labels[ids[left]] = ids[right]
    return flip_labels | {right: left for left, right in flip_labels.items()}


def view_loader(
    config: RunConfig,
    manifest: VideoManifest,
    num_clips: int,
    num_crops: int,
    world: World,
    centre_view: bool = False,
    done: Container[int] = (),
) -> DataLoader:
    """This rank's share of the videos, each with all its views.

    Args:
        num_clips, num_crops, centre_view: see `data_pipelines.datasets.clips.MultiViewDataset`.
        done: indices of videos that are not needed, see `data_pipelines.loader.eval_loader`.
    """
    dataset = multi_view_dataset(config, manifest, num_clips, num_crops, centre_view)
    videos_per_batch = max(1, config.eval.batch_size // len(dataset.clip_index))
    return eval_loader(dataset, world.rank, world.size, videos_per_batch, config.data.workers, done)


def multi_view_dataset(
    config: RunConfig, manifest: VideoManifest, num_clips: int, num_crops: int, centre_view: bool = False
) -> MultiViewDataset:
    """All views of every video, see `data_pipelines.datasets.clips.MultiViewDataset`."""
    return MultiViewDataset(
        manifest,
        config.data.preprocess(),
        num_clips,
        num_crops,
        backend=config.data.backend,
        timeout=config.data.decode_seconds,
        max_pixels=config.data.max_pixels,
        centre_view=centre_view,
    )
