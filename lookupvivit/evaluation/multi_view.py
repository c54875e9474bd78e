"""Multi-view inference: every view of every video through the model, exactly once, on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from data_pipelines.io.errors import DataError
from data_pipelines.io.progress import progress
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.evaluation.resume import Columns, PartialResult, concatenate
from lookupvivit.evaluation.stored_predictions import Predictions

Forward = Callable[[Tensor], Tensor]


@torch.no_grad()
def predict_views(
    forward: Forward,
    loader: DataLoader,
    num_videos: int,
    class_names: Sequence[str],
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    classifiers: Sequence[str] = ("logits",),
    partial: PartialResult | None = None,
    description: str = "test",
    nested: bool = False,
) -> tuple[Predictions, dict[str, str]] | None:
    """Compute the logits of all views of all videos; collective.

    No view is padded or counted twice. Ranks with fewer videos run dummy forward passes so that ZeRO-3 collectives stay
    in sync.

    Args:
        forward: views (B, 3, T, H, W) in [-1, 1] -> logits (B, S, K) of the S classifiers, or (B, K) of a single one.
        loader: samples of `data_pipelines.datasets.clips.MultiViewDataset`, this rank's share of the videos.
        num_videos: of all ranks together.
        class_names: K names.
        batch_size: maximal number of views in one forward pass.
        device, dtype: of the model's input.
        classifiers: S names; the suffix "_logits" of a model output is removed.
        partial: keeps finished videos on disk, and holds those of an interrupted test, which ``loader`` must skip.
        description: text in front of the progress bar.
        nested: the progress bar is below another one and disappears at its end.

    Returns:
        On rank 0, predictions in the order of the manifest, and the reason of every video that failed, by name. None on
        the other ranks.

    Raises:
        DataError: all videos failed.
    """
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    dummy_passes = _passes_of_busiest_rank(loader, batch_size, device) - _passes(loader, batch_size)
    parts: list[Columns] = [partial.restored] if partial and partial.restored and rank == 0 else []
    num_finished = len(partial.finished) if partial else 0
    unit = cast(Any, loader.dataset).manifest.unit
    bar_options: dict[str, Any] = {"desc": description, "disable": rank > 0, "leave": not nested}
    with progress(total=num_videos, initial=num_finished, unit=unit, **bar_options) as bar:
        try:
            for batch in loader:
                logits = _batch_logits(forward, batch["video"], batch_size, device, dtype)
                parts.append(_as_columns(batch, logits, len(classifiers)))
                if partial:
                    partial.add(parts[-1])
                bar.update(min(world_size * len(batch["video"]), num_videos - bar.n))
        finally:
            if partial:
                partial.flush()  # also after Ctrl-C, and before other ranks are waited for
        _run_dummies(forward, loader, dummy_passes, device, dtype)
    gathered = _gather(parts, rank, world_size)
    if gathered is None:
        return None
    return _assemble(concatenate(gathered), loader.dataset, num_videos, class_names, classifiers)


def _run_dummies(forward: Forward, loader: DataLoader, count: int, device: torch.device, dtype: torch.dtype) -> None:
    """Run as many passes more as the busiest rank does, each with one black view."""
    if count:
        dummy = to_model_input(torch.zeros_like(loader.dataset[0]["video"][:1]), device, dtype)
        for _ in range(count):
            forward(dummy)


def _batch_logits(
    forward: Forward, videos: Tensor, batch_size: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """uint8 (b, V, 3, T, H, W) -> float32 (b * V, S, K) or (b * V, K), on the CPU."""
    chunks = videos.flatten(0, 1).split(batch_size)
    return torch.cat([forward(to_model_input(chunk, device, dtype)).float().cpu() for chunk in chunks])


def _as_columns(batch: dict[str, Any], logits: Tensor, num_classifiers: int) -> Columns:
    """One row per video of a batch; names as in the files of `PartialResult`."""
    columns = {name: batch[name].numpy() for name in ("video_index", "frame_indices", "boxes")}
    num_videos, num_views = batch["video"].shape[:2]
    columns["head_logits"] = logits.reshape(num_videos, num_views, num_classifiers, -1).numpy()  # (b, V, S, K)
    columns["failed"] = np.array(batch["failed"], np.str_)
    return columns


def _gather(parts: list[Columns], rank: int, world_size: int) -> list[Columns] | None:
    """The parts of all ranks on rank 0, None on the others."""
    if world_size == 1:
        return parts
    gathered: list[Any] | None = [None] * world_size if rank == 0 else None
    dist.gather_object(parts, gathered)
    return None if gathered is None else [part for of_rank in gathered for part in of_rank]


def _assemble(
    rows: Columns, dataset: Any, num_videos: int, class_names: Sequence[str], classifiers: Sequence[str]
) -> tuple[Predictions, dict[str, str]]:
    """Sort rows by video and separate those of videos that failed."""
    order = np.argsort(rows["video_index"])
    rows = {name: column[order] for name, column in rows.items()}
    if rows["video_index"].tolist() != list(range(num_videos)):
        raise RuntimeError(f"found {len(order)} predictions for {num_videos} videos: some were lost or counted twice")
    manifest = dataset.manifest
    readable = rows["failed"] == ""
    failed = {manifest.paths[i]: str(rows["failed"][i]) for i in np.flatnonzero(~readable).tolist()}
    if not readable.any():
        raise DataError(f"all {num_videos} {manifest.unit}s failed; the first: {next(iter(failed.values()))}")
    predictions = Predictions(
        video_names=np.array([manifest.paths[i] for i in np.flatnonzero(readable).tolist()]),
        labels=manifest.labels[readable],
        logits=rows["head_logits"][readable],
        classifiers=tuple(name.removesuffix("_logits") for name in classifiers),
        clip_index=dataset.clip_index,
        aug_index=dataset.aug_index,
        frame_indices=rows["frame_indices"][readable],
        boxes=rows["boxes"][readable],
        class_names=tuple(class_names),
    )
    return predictions, failed


def _passes(loader: DataLoader, batch_size: int) -> int:
    """The number of forward passes that this rank's share of the videos takes."""
    dataset: Any = loader.dataset
    batches: Any = loader.batch_sampler
    num_views = len(dataset.clip_index)
    return sum(math.ceil(len(videos) * num_views / batch_size) for videos in batches)


def _passes_of_busiest_rank(loader: DataLoader, batch_size: int, device: torch.device) -> int:
    most = torch.tensor(_passes(loader, batch_size), device=device)
    if dist.is_initialized():
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
