"""The attention of the compressed tokens to an object, relative to uniform attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.evaluation.metrics import bootstrap_interval
from lookupvivit.evidence.object_clips import ObjectClip, Pair
from lookupvivit.models.base import Model
from lookupvivit.models.registry import create_model
from lookupvivit.visualization.attention_maps import attention_maps, token_coverage

CONDITIONS = ("moving", "frozen", "difference")


class Estimate(NamedTuple):
    """A mean over clips with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class ObjectAttention:
    """Attention to the object in N pairs of clips.

    Attributes:
        models: name of each group of models.
        ratios: attention relative to uniform attention, (N, groups, 2, blocks), the mean over the models of a group,
            the heads and the compressed tokens. The third axis is moving and frozen.
        covered: share of the pixels that the object covers, (N, 2).
    """

    models: tuple[str, ...]
    ratios: np.ndarray
    covered: np.ndarray

    def estimates(self) -> dict[str, dict[str, list[Estimate]]]:
        """Means and intervals by group, condition of `CONDITIONS` and block. Differences are taken within pairs."""
        moving, frozen = self.ratios[:, :, 0], self.ratios[:, :, 1]
        values = np.stack([moving, frozen, moving - frozen], axis=2)  # (N, groups, 3, blocks)
        parts = np.stack([values.mean(0), *bootstrap_interval(values)], axis=-1)  # (groups, 3, blocks, 3)
        return {
            model: {
                condition: [Estimate(*map(float, part)) for part in parts[i, j]]
                for j, condition in enumerate(CONDITIONS)
            }
            for i, model in enumerate(self.models)
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        rows = [
            {"model": model, "condition": condition, "block": block, **_rounded(estimate)}
            for model, conditions in self.estimates().items()
            for condition, blocks in conditions.items()
            for block, estimate in enumerate(blocks)
        ]
        covered = [round(float(share), 4) for share in self.covered.mean(0)]
        return {"clips": len(self.ratios), "covered": dict(zip(CONDITIONS, covered, strict=False)), "rows": rows}


def measure(groups: Mapping[str, Sequence[Model]], pairs: Iterable[Pair]) -> ObjectAttention:
    """Measure the attention of all models on all pairs.

    Args:
        groups: models by name of the group over which their ratios are averaged.
        pairs: at least one.
    """
    ratios, covered = [], []
    for pair in pairs:
        ratios.append([[_mean_ratios(models, clip) for clip in pair] for models in groups.values()])
        covered.append([clip.mask.mean() for clip in pair])
    return ObjectAttention(tuple(groups), np.array(ratios), np.array(covered))


def _mean_ratios(models: Sequence[Model], clip: ObjectClip) -> np.ndarray:
    """The mean over the models, (blocks,)."""
    ratios = []
    for model in models:
        maps = attention_maps(model, to_model_input(clip.video), blocks=range(len(model.blocks)))
        _, t, h, w = maps.weights.shape
        ratios.append(maps.within(token_coverage(clip.mask, (t, h, w))))
    return np.mean(ratios, axis=0)


def untrained_like(model: Model, number: int) -> list[Model]:
    """Models of the same architecture, with random weights from the seeds 0 to ``number`` - 1."""
    name, overrides = model.created_as
    models = []
    for seed in range(number):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models.append(create_model(name, model.num_classes, **overrides).eval())
    return models


def _rounded(estimate: Estimate) -> dict[str, float]:
    return {name: round(value, 4) for name, value in estimate._asdict().items()}
