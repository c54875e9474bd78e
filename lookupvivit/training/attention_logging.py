"""Temporal attention maps of the same few validation clips, again and again while the model learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.transforms.normalization import normalize
from lookupvivit.config import RunConfig
from lookupvivit.training.data import multi_view_dataset
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.visualization.attention_grid import clip_sheet
from lookupvivit.visualization.attention_maps import collect
from lookupvivit.visualization.canvas import save_png


class AttentionWatch:
    """Draws where the compressed tokens of the first block look, averaged over them and the heads, as Fig. 7."""

    BLOCK = 0  # for video, the first block best keeps local information (appendix A.6)

    def __init__(self, config: RunConfig, manifest: VideoManifest) -> None:
        self.clips = multi_view_dataset(config, manifest, 1, 1)
        self.class_names = manifest.class_names
        wanted = min(config.log.attention_clips, len(manifest))
        # Spread over the classes: the first clip of each of evenly spaced classes, repeated if there are too few.
        order = np.lexsort((np.arange(len(manifest)), _occurrence(manifest.labels)))
        pool = order[: max(wanted, len(np.unique(manifest.labels)))]
        self.indices = [int(pool[i]) for i in np.linspace(0, len(pool) - 1, wanted).round().astype(int)]

    @torch.no_grad()
    def show(self, model: nn.Module, step: int, log: RunLog, run: Path, world: World) -> None:
        """One sheet per clip to TensorBoard and to ``run/attention/``; collective, every rank calls it."""
        dtype = next(model.parameters()).dtype
        for number, index in enumerate(self.indices):  # one at a time: A of a full-size video block takes 50 MB in bf16
            sample = self.clips[index]
            frames = sample["video"][0]  # (3, T, H, W) uint8
            output = model(normalize(frames[None].to(world.device), dtype), return_intermediates=True)
            if "attention" not in output.intermediates[self.BLOCK]:
                log.say("attention maps: none, this model has no cross-attention")
                return
            if not world.is_main or sample["broken"]:
                continue
            maps = collect(normalize(frames), output, [self.BLOCK])
            truth, guess = (self._name(int(c)) for c in (sample["label"], maps.probabilities.argmax()))
            title = f"{truth}  |  predicted at step {step}: {guess} ({100 * maps.probabilities.max():.0f} %)"
            sheet = clip_sheet([maps], title)
            name = f"{number}_{Path(sample['video_name']).stem}"  # numbered: class folders may repeat file names
            log.picture(step, f"attention/{name}", sheet)
            save_png(run / "attention" / f"{name}_step_{step:08d}.png", sheet)

    def _name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else str(label)


def _occurrence(labels: np.ndarray) -> np.ndarray:
    """How often each entry's label has come before it: 0 for the first clip of a class, 1 for the second, ..."""
    seen: dict[int, int] = {}
    counts = np.empty(len(labels), dtype=np.int64)
    for i, label in enumerate(labels.tolist()):
        counts[i] = seen.get(label, 0)
        seen[label] = counts[i] + 1
    return counts
