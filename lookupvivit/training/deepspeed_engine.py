"""DeepSpeed around a model: precision, ZeRO stage, gradient accumulation, clipping, and what wraps the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lookupvivit.config import RunConfig
from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.models.base import Model
from lookupvivit.profiling.memory_estimate import REDUCE_BUCKET_SIZE
from lookupvivit.training.distributed import World
from lookupvivit.training.ema import AveragedSteps
from lookupvivit.training.optimizer import MOMENT_NAMES, FiniteSteps, build_optimizer
from lookupvivit.training.schedule import Batching


def initialize(model: Model, config: RunConfig, batching: Batching, world: World) -> tuple[Any, FiniteSteps]:
    """Build optimizer and DeepSpeed engine around ``model``.

    Returns:
        The engine and the guard against non-finite gradients. The engine has the additional attributes
        ``frozen_weights`` (float32 tensors by name), ``moment_names`` (of the optimizer) and ``has_averages``.
    """
    import deepspeed

    # From the inside out: a compiled block contains its recomputation, and DeepSpeed's hooks see whole blocks.
    if config.runtime.activation_checkpointing:
        set_activation_checkpointing(model)
    if config.runtime.compile:
        for block in model.blocks:
            block.compile()

    # DeepSpeed rounds all weights to its precision and keeps float32 copies of the trainable ones only.
    frozen = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if not p.requires_grad}

    optimizer = build_optimizer(model, config.optim, config.runtime.offload_optimizer)
    if config.optim.ema_decay:
        AveragedSteps(optimizer)  # inside the guard: a skipped step does not update the average
    guard = FiniteSteps(optimizer, world.any, config.optim.skip_non_finite)

    num_trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    settings = deepspeed_settings(config, batching, num_trainable, on_gpu=world.device.type == "cuda")
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    engine.frozen_weights = frozen
    engine.moment_names, engine.has_averages = MOMENT_NAMES[config.optim.name], config.optim.ema_decay > 0
    return engine, guard


@contextmanager
def keep_settings(engine: Any) -> Iterator[None]:
    """Keep the optimizer's settings while a checkpoint is loaded: DeepSpeed would restore those that wrote it."""
    settings = [{key: group[key] for key in group if key != "params"} for group in engine.optimizer.param_groups]
    clip_grad = getattr(engine.optimizer, "clip_grad", None)  # of its sharding optimizers
    yield
    for group, current in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(current)
    if clip_grad is not None:
        engine.optimizer.clip_grad = clip_grad


def deepspeed_settings(config: RunConfig, batching: Batching, num_trainable: int, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's configuration."""
    precision = config.runtime.precision
    # DeepSpeed allocates the whole bucket; its default of 2 GB does not depend on the model.
    bucket_size = min(num_trainable, REDUCE_BUCKET_SIZE)
    zero: dict[str, Any] = {"stage": config.runtime.zero_stage, "reduce_bucket_size": bucket_size}
    if config.runtime.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    return {
        "train_batch_size": batching.batch,
        "train_micro_batch_size_per_gpu": batching.micro_batch,
        "gradient_accumulation_steps": batching.accumulation,
        "gradient_clipping": config.optim.clip_grad,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is vectorised as well and compiles no operator
        "zero_allow_untested_optimizer": True,  # SGD with momentum is element-wise, so sharding does not change it
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "communication_data_type": "fp32",  # gradients are summed in float32, over ranks
        "data_types": {"grad_accum_dtype": "fp32"},  # and over micro-batches
        "steps_per_print": 10**9,  # never: the trainer logs
    }
