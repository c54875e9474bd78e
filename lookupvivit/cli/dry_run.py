"""What a configuration would run and what that costs, told without running it: nothing is written or started."""

from __future__ import annotations

import math

import torch
from torch import nn

from data_pipelines.io.errors import MissingDataError
from lookupvivit.config import RunConfig
from lookupvivit.config.loading import to_yaml
from lookupvivit.profiling.flops import count_cost
from lookupvivit.profiling.memory_estimate import MemoryEstimate, TrainingSetup, estimate_memory
from lookupvivit.training.build import build_on_meta
from lookupvivit.training.distributed import World
from lookupvivit.training.optimizer import parameter_groups
from lookupvivit.training.schedule import Batching, Plan, training_order
from lookupvivit.training.tasks import create_task
from lookupvivit.training.utilization import training_macs

GIGA = 1e9


def dry_run(config: RunConfig, ranks: int | None = None) -> None:
    """Print configuration, data, batches, steps, costs and memory of a run on ``ranks`` (default: GPUs here, or 1).

    Raises:
        ConfigError, DataError: as the run itself would; for missing data at the end, when what needs none was told.
    """
    gpus = torch.cuda.device_count()
    world = World(0, ranks or max(1, gpus), torch.device("cuda" if gpus else "cpu"))
    task = create_task(config, world)
    print(to_yaml(config))
    batching, steps, missing = Batching.from_config(config, world), "no data to count steps of", None
    try:
        plan = Plan.from_config(config, training_order(config, task.count_samples()))
        steps = f"{plan.total} steps, {plan.steps_per_epoch} per epoch, {plan.warmup} of warmup"
    except MissingDataError as error:
        missing = error
    print(f"{batching}; {steps}; {config.runtime.precision}, ZeRO {config.runtime.zero_stage}")
    model = build_on_meta(task.build_model)
    tell_model(model, config)
    for device in ("cuda",) if gpus else ("cpu", "cuda"):
        if (device, config.runtime.precision) != ("cpu", "fp16"):
            tell_memory(memory(model, config, batching, device), device)
    if config.runtime.offload_optimizer:
        print(
            "runtime.offload_optimizer: master weights, moments and moving average are counted above, but lie in the "
            "CPU's memory"
        )
    if missing:
        raise missing


def compressed_sizes(config: RunConfig) -> list[dict[str, tuple[int, int, int]]]:
    """The calls that training makes, one for every compressed size it draws from."""
    multi_resolution = config.model.multi_resolution
    return [{"compressed_size": size} for size in multi_resolution.sizes] if multi_resolution else [{}]


def tell_model(model: nn.Module, config: RunConfig) -> None:
    """Parameters and multiply-adds; over all compressed sizes in multi-resolution training."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    data = config.data
    calls = compressed_sizes(config)
    macs = [count_cost(model, (1, 3, data.frames, data.crop, data.crop), **call).macs for call in calls]
    mean = sum(macs) / len(macs)
    span = f" on average over {len(macs)} compressed sizes ({min(macs) / GIGA:.1f} to {max(macs) / GIGA:.1f})"
    print(f"{config.model.name}: {total / 1e6:.2f} M parameters, {trainable / 1e6:.2f} M of them trained")
    print(f"forward pass: {mean / GIGA:.2f} GFLOPs (multiply-adds) per clip{span if len(macs) > 1 else ''}")
    trained = [training_macs(model, (1, 3, data.frames, data.crop, data.crop), **call) for call in calls]
    step = sum(trained) / len(trained) * config.optim.batch_size
    again = ", a third more with activation checkpointing" if config.runtime.activation_checkpointing else ""
    print(f"training: {step / 1e12:.4g} TFLOPs per step (multiply-adds), of all ranks together{again}")


def memory(model: nn.Module, config: RunConfig, batching: Batching, device: str) -> MemoryEstimate:
    """The estimate for one rank, at the largest compressed size."""
    data, optim, runtime = config.data, config.optim, config.runtime
    groups = parameter_groups(model, optim.weight_decay, optim.layer_decay)
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    setup = TrainingSetup(
        runtime.precision,
        optim.name,
        runtime.zero_stage,
        batching.world,
        batching.accumulation,
        runtime.activation_checkpointing,
        optim.ema_decay > 0,
        optim.weight_decay > 0,
        sizes,
        device,
        sum(p.numel() for p in model.parameters() if not p.requires_grad),
    )
    largest = max(compressed_sizes(config), key=lambda call: math.prod(call.get("compressed_size", ())))
    return estimate_memory(model, (batching.micro_batch, 3, data.frames, data.crop, data.crop), setup, **largest)


def tell_memory(found: MemoryEstimate, device: str) -> None:
    """One line for the peak, and what makes it up."""
    where = {"cpu": "on a CPU", "cuda": "on a GPU"}[device]
    stays = ", ".join(f"{name} {size / GIGA:.2f}" for name, size in found.resident.items())
    parts = ", ".join(f"{name} {size / GIGA:.2f}" for name, size in found.phases.items())
    print(
        f"memory per rank {where}: about {found.peak / GIGA:.2f} GB at the peak ({parts}); of this stay {stays}; "
        f"micro-batch {found.inputs / GIGA:.2f}, saved activations {found.saved / GIGA:.2f}"
    )
