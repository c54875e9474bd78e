"""What the trainer asks of a task. The trainer knows nothing else about what is learned."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from data_pipelines.datasets.clips import ClipDataset
from lookupvivit.config import RunConfig
from lookupvivit.experiments import experiment_of_dataset
from lookupvivit.models.base import Model
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.training.losses import TaskLoss


class Task(Protocol):
    """Model, data, loss and metric of a run.

    Creating a task reads nothing; `read_data` does. Methods marked *collective* are called by every rank.

    Attributes:
        metric: the score of `validate` that selects the best model, after `read_data`.
        num_samples: number of training videos, after `read_data`.
        copies: how often each of them occurs in an epoch (see `TrainingOrder`), after `read_data`.
    """

    @property
    def metric(self) -> str: ...

    num_samples: int
    copies: np.ndarray | None

    def build_model(self) -> Model:
        """The configured model with random weights."""

    def load_initial_weights(self, model: Model) -> str | None:
        """Load ``init_from`` into a new model. Returns what to report about it."""

    def count_samples(self) -> int:
        """The number of samples in an epoch, found without writing anything; prints what is missing."""

    def read_data(self) -> None:
        """Find training and validation data, preparing them if needed; collective."""

    def description(self) -> dict[str, Any]:
        """The contents of model.json: how to rebuild the model, and the preprocessing of its input."""

    def training_set(self) -> ClipDataset:
        """Random, augmented clips with their targets."""

    def loss(
        self, engine: Any, video: Tensor, batch: dict[str, Any], call: dict[str, Any], rng: np.random.Generator
    ) -> TaskLoss:
        """The losses of a micro-batch.

        Args:
            engine: DeepSpeed's engine, called like the model.
            video: (B, 3, T, H, W) in [-1, 1], on the device.
            batch: collated samples of `training_set`.
            call: further keyword arguments of the model's call.
            rng: source of all randomness of this step and rank.
        """

    def validate(self, model: nn.Module, step: int, log: RunLog) -> dict[str, float]:
        """Scores by name, `metric` among them, on rank 0 (elsewhere empty); collective."""

    def draw(self, model: nn.Module, step: int, log: RunLog) -> None:
        """Draw the output for a few validation videos, to TensorBoard and into the run directory; collective."""


def create_task(config: RunConfig, world: World) -> Task:
    """The task that a configuration asks for: that of its dataset's experiment, else classification."""
    experiment = experiment_of_dataset(config.data.dataset)
    if experiment is not None:
        return experiment.create_task(config, world)
    from lookupvivit.training.classification import Classification  # imports this module

    return Classification(config, world)
