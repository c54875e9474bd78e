"""Multi-view inference: every view of every video through the model, exactly once, on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from data_pipelines.io.errors import DataError
from data_pipelines.io.progress import progress
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.evaluation.predictions import Predictions
from lookupvivit.evaluation.resume import Columns, PartialResult, join


@torch.no_grad()
def predict_views(
    forward: Callable[[Tensor], Tensor],
    loader: DataLoader,
    num_videos: int,
    class_names: Sequence[str],
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    description: str = "test",
    within: bool = False,
    heads: Sequence[str] = ("logits",),
    partial: PartialResult | None = None,
) -> tuple[Predictions, dict[str, str]] | None:
    """Logits of all views of all videos that can be read, and what kept the others from it, by name.

    Args:
        forward: views (B, 3, T, H, W) in [-1, 1] to logits (B, S, K) of the S ``heads``, or (B, K) of one.
        loader: this rank's share of the videos, samples of `data_pipelines.datasets.clips.MultiViewDataset`.
        num_videos: videos of all ranks together.
        batch_size: most views in one forward pass.
        within: the bar stands below another one, and goes when it is done.
        heads: names of the classifiers.
        partial: keeps finished videos on disk, and holds those of an interrupted run, which ``loader`` leaves out.

    Returns:
        Predictions in the order of the manifest and the broken videos, on rank 0; None on the other ranks. No view is
        padded or counted twice: ranks with fewer videos only keep a sharded model's collectives company, with passes
        on zeros.

    Raises:
        DataError: not one video can be read.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    idle = _passes_of_busiest_rank(loader, batch_size, device) - _passes(loader, batch_size)
    found = [partial.restored] if partial and rank == 0 and partial.done else []
    finished = len(partial.done) if partial else 0
    with progress(
        total=num_videos, initial=finished, unit="video", desc=description, disable=rank > 0, leave=not within
    ) as bar:
        for batch in loader:
            views = batch["video"]  # (b, V, 3, T, H, W) uint8
            logits = [
                forward(to_model_input(chunk, device, dtype)).float().cpu()
                for chunk in views.flatten(0, 1).split(batch_size)
            ]  # (b * V, S, K) together
            columns = {name: batch[name].numpy() for name in ("video_index", "frame_indices", "boxes")}
            columns["head_logits"] = torch.cat(logits).unflatten(0, views.shape[:2]).numpy()
            columns["head_logits"] = columns["head_logits"].reshape(*views.shape[:2], len(heads), -1)  # (b, V, S, K)
            columns["failed"] = np.array(batch["failed"], np.str_)
            found.append(columns)
            if partial:
                partial.add(columns)
            bar.update(min(world * len(views), num_videos - bar.n))
        if partial:
            partial.flush()  # other ranks may take long
        if idle:
            nothing = to_model_input(torch.zeros_like(loader.dataset[0]["video"][:1]), device, dtype)
            for _ in range(idle):
                forward(nothing)
    shares = [found]
    if world > 1:
        shares = [None] * world if rank == 0 else None
        dist.gather_object(found, shares)
    if rank > 0:
        return None
    everything = join([part for share in shares for part in share])
    return _predictions(everything, loader, num_videos, class_names, heads)


def _predictions(
    everything: Columns, loader: DataLoader, num_videos: int, class_names: Sequence[str], heads: Sequence[str]
) -> tuple[Predictions, dict[str, str]]:
    order = np.argsort(everything["video_index"])
    columns = {name: column[order] for name, column in everything.items()}
    if columns["video_index"].tolist() != list(range(num_videos)):
        raise RuntimeError(f"{len(order)} predictions for {num_videos} videos: some were lost or counted twice")
    dataset = loader.dataset
    sound = columns["failed"] == ""
    broken = {dataset.manifest.paths[i]: str(columns["failed"][i]) for i in np.flatnonzero(~sound).tolist()}
    if not sound.any():
        raise DataError(f"none of the {num_videos} videos can be read; the first: {next(iter(broken.values()))}")
    return Predictions(
        video_names=np.array([dataset.manifest.paths[i] for i in np.flatnonzero(sound).tolist()]),
        labels=np.asarray(dataset.manifest.labels, np.int64)[sound],
        head_logits=columns["head_logits"][sound],
        heads=tuple(name.removesuffix("_logits") for name in heads),
        clip_index=dataset.clip_index,
        aug_index=dataset.aug_index,
        frame_indices=columns["frame_indices"][sound],
        boxes=columns["boxes"][sound],
        class_names=tuple(class_names),
    ), broken


def _passes(loader: DataLoader, batch_size: int) -> int:
    """Forward passes that this rank's share takes."""
    views = len(loader.dataset.clip_index)
    return sum(math.ceil(len(videos) * views / batch_size) for videos in loader.batch_sampler)


def _passes_of_busiest_rank(loader: DataLoader, batch_size: int, device: torch.device) -> int:
    most = torch.tensor(_passes(loader, batch_size), device=device)
    if dist.is_initialized():
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
