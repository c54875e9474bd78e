"""The arithmetic of a run: how a batch is split over ranks, how many steps there are, when an action is due."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.loader import TrainingOrder
from data_pipelines.random_streams import COMPRESSED_SIZE, KEEP
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import prefix_data_errors


@dataclass(frozen=True)
class Batching:
    """How a global batch is split: batch = micro_batch * accumulation * world.

    Attributes:
        batch: clips per optimizer step, of all ranks together.
        micro_batch: clips per rank and forward pass.
        accumulation: forward passes per optimizer step.
        world: number of ranks.
    """

    batch: int
    micro_batch: int
    accumulation: int
    world: int

    @classmethod
    def from_config(cls, config: RunConfig, world: World) -> Batching:
        """Split ``optim.batch_size`` over the ranks of ``world``.

        Raises:
            ConfigError: the batch cannot be split evenly, or micro-batches are too small for repeats or mixing.
        """
        batch = config.optim.batch_size
        micro_batch = config.optim.micro_batch_size or max(1, batch // world.size)
        accumulation, remainder = divmod(batch, micro_batch * world.size)
        if remainder or not accumulation:
            raise ConfigError(
                f"optim.batch_size: found {batch}, expected a multiple of {micro_batch * world.size}, the product of "
                f"optim.micro_batch_size = {micro_batch} and the number of ranks, {world.size}"
            )
        repeats = config.data.repeats
        if micro_batch % repeats:
            raise ConfigError(
                f"data.repeats: found {repeats}, expected a divisor of the micro-batch size, {micro_batch} clips"
            )
        for key in ("mixup", "cutmix"):
            alpha = getattr(config.augment, key)
            if alpha and micro_batch == 1:
                raise ConfigError(
                    f"augment.{key}: found {alpha}, expected 0 with micro-batches of 1 clip, which cannot be mixed; "
                    "set optim.micro_batch_size to 2 or more"
                )
        return cls(batch, micro_batch, accumulation, world.size)

    def __str__(self) -> str:
        ranks = "1 rank" if self.world == 1 else f"{self.world} ranks"
        return f"batch {self.batch} = {self.micro_batch} clips x {self.accumulation} accumulation steps x {ranks}"


def training_order(config: RunConfig, num_videos: int, copies: np.ndarray | None = None) -> TrainingOrder:
    """The order in which a run visits its ``num_videos`` training videos, and how often in an epoch (``copies``).

    Raises:
        DataError: a global batch has more videos than the training set.
    """
    videos_per_step = config.optim.batch_size // config.data.repeats
    with prefix_data_errors("optim.batch_size: "):
        return TrainingOrder(num_videos, videos_per_step, config.seed, copies)


@dataclass(frozen=True)
class Plan:
    """The length of a run in optimizer steps.

    Attributes:
        steps_per_epoch: steps in one pass over the training set.
        total: steps in the run.
        warmup: steps over which the learning rate rises.
    """

    steps_per_epoch: int
    total: int
    warmup: int

    @classmethod
    def from_config(cls, config: RunConfig, order: TrainingOrder) -> Plan:
        """Convert epochs to steps, at least ``optim.min_steps``; ``optim.max_steps``, if set, replaces both."""
        per_epoch = order.steps_per_epoch
        total = config.optim.max_steps or max(1, config.optim.min_steps, round(config.optim.epochs * per_epoch))
        return cls(per_epoch, total, round(config.optim.warmup_epochs * per_epoch))

    def due(self, step: int, every_epochs: float) -> bool:
        """Whether an action that is repeated every ``every_epochs`` epochs is due after ``step`` steps.

        It is always due after the last step, and never if ``every_epochs`` is 0.
        """
        if not every_epochs:
            return False
        return step == self.total or step % max(1, round(every_epochs * self.steps_per_epoch)) == 0


def call_of_step(config: RunConfig, step: int) -> dict[str, Any]:
    """Keyword arguments of the model's call in a step: those of ``compressed_size`` and ``keep`` that training varies.

    One size (section 4) and one share are drawn per global batch. They are keyed on seed and step, as in FlexiViT, so
    that they are the same on every rank and after a resume.
    """
    call: dict[str, Any] = {}
    if sizes := config.model.multi_resolution:
        rng = np.random.default_rng((config.seed, step, COMPRESSED_SIZE))
        t, k = int(rng.choice(sizes.t)), int(rng.choice(sizes.k))
        call["compressed_size"] = (t, k, k)
    if shares := config.model.keep_shares:
        call |= _keep(float(np.random.default_rng((config.seed, step, KEEP)).choice(shares)))
    return call


def _keep(share: float) -> dict[str, Any]:
    return {"keep": share} if share < 1 else {}


def calls_of_steps(config: RunConfig) -> list[dict[str, Any]]:
    """Everything that `call_of_step` may return, the most expensive one last."""
    sizes = config.model.multi_resolution
    by_size = [{"compressed_size": size} for size in sorted(sizes.sizes, key=math.prod)] if sizes else [{}]
    by_share = [_keep(share) for share in config.model.keep_shares] or [{}]
    return [{**size, **share} for size, share in itertools.product(by_size, by_share)]
