"""What a run learns. The loop knows no more of it than this."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from data_pipelines.datasets.clips import ClipDataset
from lookupvivit.config import RunConfig
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog


class Task(Protocol):
    """Which data is read, the loss of a batch, and what a model is judged by.

    Attributes:
        samples: videos to train on.
        metric: the score of `validate` by which the best model is kept.
    """

    samples: int
    metric: str

    def description(self) -> dict[str, Any]:
        """model.json: how to rebuild the model, and what it must be fed."""

    def training_set(self) -> ClipDataset:
        """Random clips, and what they are to teach."""

    def loss(
        self, engine: nn.Module, video: Tensor, batch: dict[str, Any], call: dict[str, Any], rng: np.random.Generator
    ) -> Tensor:
        """The losses (S,) of a micro-batch, one for every field of the output in ``engine.module.supervised``.

        Args:
            video: (B, 3, T, H, W) in [-1, 1], on the device.
            batch: what `training_set` gave, collated.
            call: further keyword arguments of the model's call.
        """

    def validate(self, model: nn.Module, step: int, log: RunLog) -> dict[str, float]:
        """Scores by name, ``metric`` among them, on the main rank; collective, every rank calls it."""

    def show(self, model: nn.Module, step: int, log: RunLog, run: Path) -> None:
        """Draw what the model makes of a few validation videos; collective, every rank calls it."""


def task_of(config: RunConfig, world: World) -> Task:
    """What a configuration asks for; its data is read, and what is missing of it told."""
    if config.data.has_captions:
        from lookupvivit.captioning.task import Captioning

        return Captioning(config, world)
    from lookupvivit.training.classification import Classification

    return Classification(config, world)
