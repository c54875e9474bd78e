"""Print what a configuration would run and what that costs. Nothing is started or written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from data_pipelines.io.errors import MissingDataError
from lookupvivit.config import RunConfig
from lookupvivit.models.base import Model
from lookupvivit.profiling.flops import UncountedOperatorError, count_cost
from lookupvivit.profiling.memory_estimate import MemoryEstimate, TrainingSetup, estimate_memory
from lookupvivit.training.build import build_on_meta
from lookupvivit.training.distributed import World
from lookupvivit.training.optimizer import parameter_groups
from lookupvivit.training.schedule import Batching, Plan, calls_of_steps, training_order
from lookupvivit.training.tasks import create_task
from lookupvivit.training.utilization import training_macs

GIGA = 1e9


def dry_run(config: RunConfig, ranks: int | None = None) -> None:
    """Print data, batches, steps, cost and memory of a run.

    Args:
        ranks: number of ranks of the run; by default one per GPU of this machine, or one.

    Raises:
        ConfigError, DataError: those of the run itself. An error about missing data comes last, after everything that
            does not depend on the data is printed.
    """
    num_gpus = torch.cuda.device_count()
    world = World(0, ranks or max(1, num_gpus), torch.device("cuda" if num_gpus else "cpu"))
    task = create_task(config, world)
    batching = Batching.from_config(config, world)
    missing: MissingDataError | None = None
    try:
        schedule = describe_schedule(config, task.count_samples())
    except MissingDataError as error:
        missing, schedule = error, "unknown number of steps, because the data is missing"
    print(f"{batching}; {schedule}; {config.runtime.precision}, ZeRO {config.runtime.zero_stage}")
    model = build_on_meta(task.build_model)
    print_cost(model, config)
    for device in ("cuda",) if num_gpus else ("cpu", "cuda"):
        if (device, config.runtime.precision) != ("cpu", "fp16"):  # not supported
            print_memory(memory_of_rank(model, config, batching, device), device)
    if config.runtime.offload_optimizer:
        print("with runtime.offload_optimizer, master weights, moments and moving average are in CPU memory instead")
    if missing:
        raise missing


def describe_schedule(config: RunConfig, num_samples: int) -> str:
    """The number of optimizer steps, in words."""
    plan = Plan.from_config(config, training_order(config, num_samples))
    return f"{plan.total} steps, {plan.steps_per_epoch} per epoch, {plan.warmup} of warmup"


def print_cost(model: nn.Module, config: RunConfig) -> None:
    """Print parameters and multiply-adds, the mean over the compressed sizes and shares that training draws from."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"{config.model.name}: {total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M of them trained")
    shape, calls = clip_shape(config), calls_of_steps(config)
    try:
        forward = [count_cost(model, shape, **call).macs / GIGA for call in calls]
        per_step = config.optim.batch_size * mean([training_macs(model, shape, **call) / GIGA for call in calls])
    except UncountedOperatorError as error:
        print(f"forward pass: unknown GFLOPs ({error})")
        return
    unit = "calls" if config.model.keep else "compressed sizes"
    sizes = f", mean of {len(calls)} {unit} ({min(forward):.4g} to {max(forward):.4g})"
    print(f"forward pass: {mean(forward):.4g} GFLOPs (multiply-adds) per clip{sizes if len(calls) > 1 else ''}")
    recomputation = "; activation checkpointing adds a third" if config.runtime.activation_checkpointing else ""
    print(f"training: {per_step / 1e3:.4g} TFLOPs per step over all ranks{recomputation}")


def memory_of_rank(model: Model, config: RunConfig, batching: Batching, device: str) -> MemoryEstimate:
    """Estimate the memory of one rank, at the largest compressed size."""
    optim, runtime = config.optim, config.runtime
    groups = parameter_groups(model, optim.weight_decay, optim.layer_decay)
    setup = TrainingSetup(
        precision=runtime.precision,
        optimizer=optim.name,
        zero_stage=runtime.zero_stage,
        world=batching.world,
        accumulation=batching.accumulation,
        checkpointing=runtime.activation_checkpointing,
        averaged=optim.ema_decay > 0,
        decays=optim.weight_decay > 0,
        groups=[sum(parameter.numel() for parameter in group["params"]) for group in groups],
        device=device,
        frozen=sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad),
    )
    return estimate_memory(model, clip_shape(config, batching.micro_batch), setup, **calls_of_steps(config)[-1])


def print_memory(memory: MemoryEstimate, device: str) -> None:
    """Print the peak of one rank, and what it consists of."""
    place = {"cpu": "on a CPU", "cuda": "on a GPU"}[device]
    print(f"memory per rank {place}: about {memory.peak / GIGA:.2f} GB at the peak")
    print(f"    phases: {gigabytes(memory.phases)}")
    print(f"    always: {gigabytes(memory.resident)}")
    print(f"    per micro-batch: {gigabytes({'input': memory.inputs, 'saved activations': memory.saved})}")


def clip_shape(config: RunConfig, batch_size: int = 1) -> tuple[int, ...]:
    """The shape (B, 3, T, H, W) of the model's input."""
    data = config.data
    return (batch_size, 3, data.frames, data.crop, data.crop)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def gigabytes(sizes: Mapping[str, int]) -> str:
    """Write named numbers of bytes in GB."""
    return ", ".join(f"{name} {size / GIGA:.2f}" for name, size in sizes.items())
