"""Multi-view inference: every view of every video through the model, exactly once, on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from data_pipelines.errors import DataError
from data_pipelines.progress import progress
from data_pipelines.transforms import normalize
from lookupvivit.evaluation.predictions import Predictions


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
) -> tuple[Predictions, dict[str, str]] | None:
    """Logits of all views of all videos that can be read, and what kept the others from it, by name.

    Args:
        forward: views (B, 3, T, H, W) in [-1, 1] to logits (B, K).
        loader: this rank's share of the videos, samples of `data_pipelines.datasets.MultiViewDataset`.
        num_videos: videos of all ranks together.
        batch_size: most views in one forward pass.
        within: the bar stands below another one, and goes when it is done.

    Returns:
        Predictions in the order of the manifest and the broken videos, on rank 0; None on the other ranks. No view is
        padded or counted twice: ranks with fewer videos only keep a sharded model's collectives company, with passes
        on zeros.

    Raises:
        DataError: not one video can be read.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    passes, found = 0, []
    with progress(total=num_videos, unit="video", desc=description, disable=rank > 0, leave=not within) as bar:
        for batch in loader:
            views = batch["video"]  # (b, V, 3, T, H, W) uint8
            flat = views.flatten(0, 1)
            logits = []
            for chunk in flat.split(batch_size):
                logits.append(forward(normalize(chunk.to(device, non_blocking=True), dtype)).float().cpu())
                passes += 1
            per_view = torch.cat(logits).unflatten(0, views.shape[:2]).numpy()  # (b, V, K)
            clip_index, aug_index = batch["clip_index"][0].numpy(), batch["aug_index"][0].numpy()
            indices, labels = batch["video_index"].tolist(), batch["label"].tolist()
            found += zip(indices, batch["video_name"], labels, per_view, batch["broken"], strict=True)
            bar.update(min(world * len(views), num_videos - bar.n))
        if idle := _passes_of_busiest_rank(loader, num_videos, batch_size, world) - passes:
            nothing = normalize(torch.zeros_like(loader.dataset[0]["video"][:1]).to(device), dtype)
            for _ in range(idle):
                forward(nothing)
    shares = [found]
    if world > 1:
        shares = [None] * world if rank == 0 else None
        dist.gather_object(found, shares)
    if rank > 0:
        return None
    everything = sorted((row for share in shares for row in share), key=lambda row: row[0])
    if [row[0] for row in everything] != list(range(num_videos)):
        raise RuntimeError(f"{len(everything)} predictions for {num_videos} videos: some were lost or counted twice")
    broken = {name: reason for _, name, _, _, reason in everything if reason}
    if len(broken) == num_videos:
        raise DataError(f"none of the {num_videos} videos can be read; the first: {next(iter(broken.values()))}")
    _, names, labels, view_logits, _ = zip(*(row for row in everything if not row[4]), strict=True)
    predictions = Predictions(
        np.array(names), np.array(labels, np.int64), np.stack(view_logits), clip_index, aug_index, tuple(class_names)
    )
    return predictions, broken


def _passes_of_busiest_rank(loader: DataLoader, num_videos: int, batch_size: int, world: int) -> int:
    """Forward passes of rank 0, which has the most videos."""
    views = loader.dataset.num_clips * loader.dataset.num_crops
    full, rest = divmod(math.ceil(num_videos / world), loader.batch_size)
    return full * math.ceil(loader.batch_size * views / batch_size) + math.ceil(rest * views / batch_size)
