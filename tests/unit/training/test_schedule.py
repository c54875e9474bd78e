"""The arithmetic of batches and epochs."""

import pytest
import torch

from data_pipelines.loader import TrainingOrder
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config
from lookupvivit.training.distributed import World
from lookupvivit.training.schedule import Batching, Plan

CPU = torch.device("cpu")


def config(*overrides):
    return load_config("configs/camera_motion.yaml", overrides)


def test_global_batch_is_split_over_ranks_and_accumulation_steps():
    batching = Batching.from_config(config("optim.batch_size=48", "optim.micro_batch_size=4"), World(0, 3, CPU))
    assert (batching.micro_batch, batching.accumulation, batching.world) == (4, 4, 3)
    assert str(batching) == "batch 48 = 4 clips x 4 accumulation steps x 3 ranks"


@pytest.mark.parametrize("override", ["optim.micro_batch_size=5", "optim.batch_size=7"])
def test_a_batch_that_cannot_be_split_is_refused(override):
    with pytest.raises(ConfigError, match=r"optim\.batch_size"):
        Batching.from_config(config(override), World(0, 2, CPU))


def test_mixup_needs_micro_batches_of_two_clips():
    with pytest.raises(ConfigError, match=r"augment\.mixup"):
        Batching.from_config(config("augment.mixup=0.3", "optim.batch_size=2"), World(0, 2, CPU))
    Batching.from_config(config("augment.mixup=0.3", "optim.batch_size=4"), World(0, 2, CPU))


def test_plan_counts_epochs_in_steps():
    plan = Plan.from_config(config("optim.epochs=2", "optim.warmup_epochs=0.5"), TrainingOrder(100, 16, 0))
    assert (plan.steps_per_epoch, plan.total, plan.warmup) == (6, 12, 3)
    assert [step for step in range(1, 13) if plan.due(step, 0.5)] == [3, 6, 9, 12]
    assert [step for step in range(1, 13) if plan.due(step, 0.8)] == [5, 10, 12]
    assert not any(plan.due(step, 0) for step in range(1, 13))
    for least, total in ((12, 12), (13, 13)):
        settings = config("optim.epochs=2", "optim.warmup_epochs=0.5", f"optim.min_steps={least}")
        assert Plan.from_config(settings, TrainingOrder(100, 16, 0)) == Plan(6, total, 3)
