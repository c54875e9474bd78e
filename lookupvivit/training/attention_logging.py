"""Attention maps of the same few validation clips, drawn again and again while the model trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.text import output_name
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.config import RunConfig
from lookupvivit.training.data import multi_view_dataset
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.visualization.attention_grid import clip_grid
from lookupvivit.visualization.attention_maps import maps_from_output
from lookupvivit.visualization.canvas import save_png

BLOCK = 0  # for video, the first block keeps local information best (appendix A.6)


class AttentionLogger:
    """Draws where the compressed tokens of the first block attend to, averaged over tokens and heads, as in Fig. 7.

    Args:
        config: ``log.attention_clips`` is the number of clips.
        manifest: the validation videos. The clips are of evenly spaced classes.
        world: the ranks.
    """

    def __init__(self, config: RunConfig, manifest: VideoManifest, world: World) -> None:
        self.world = world
        self.clips = multi_view_dataset(config, manifest, 1, 1)
        self.class_names = manifest.class_names
        self.indices = spread_over_classes(manifest.first_labels, config.log.attention_clips)

    @torch.no_grad()
    def draw(self, model: nn.Module, step: int, log: RunLog) -> None:
        """Write one figure per clip to TensorBoard and to ``attention/`` in the run directory; collective."""
        dtype = next(model.parameters()).dtype
        for number, index in enumerate(self.indices):  # one at a time: A of a full-size video block takes 50 MB in bf16
            sample = self.clips[index]
            frames = sample["video"][0]  # (3, T, H, W) uint8
            output = model(to_model_input(frames[None], self.world.device, dtype), return_intermediates=True)
            if "attention" not in output.intermediates[BLOCK]:
                log.print("attention maps: none, this model has no cross-attention")
                return
            if not self.world.is_main or sample["failed"]:
                continue
            maps = maps_from_output(to_model_input(frames), output, [BLOCK])
            label, prediction = self._name(sample["label"]), self._name(int(maps.probabilities.argmax()))
            title = f"{label}  |  predicted at step {step}: {prediction} ({100 * maps.probabilities.max():.0f} %)"
            figure = clip_grid([maps], title)
            stem = output_name(Path(sample["video_name"]).stem)
            name = f"{number}_{stem}"  # numbered: file names may repeat between classes
            log.image(step, f"attention/{name}", figure)
            save_png(log.run_dir / "attention" / f"{name}_step_{step:08d}.png", figure)

    def _name(self, label: int | np.ndarray) -> str:
        if isinstance(label, np.ndarray):
            return ", ".join(self.class_names[k] for k in np.flatnonzero(label).tolist()) or "none"
        return self.class_names[label] if label < len(self.class_names) else str(label)


def spread_over_classes(labels: np.ndarray, count: int) -> list[int]:
    """Indices of up to ``count`` clips: the first clip of each of evenly spaced classes, then second clips, and so on.

    Args:
        labels: class of every clip, int64 (N,).
        count: number of clips; at most N are returned.
    """
    seen: dict[int, int] = {}
    occurrence = np.empty(len(labels), dtype=np.int64)  # how many clips of its class come before each clip
    for index, label in enumerate(labels.tolist()):
        occurrence[index] = seen.get(label, 0)
        seen[label] = occurrence[index] + 1
    order = np.lexsort((np.arange(len(labels)), occurrence))
    count = min(count, len(labels))
    pool = order[: max(count, len(np.unique(labels)))]
    return [int(pool[place]) for place in np.linspace(0, len(pool) - 1, count).round().astype(int)]
