"""From a configuration to a model under DeepSpeed, and the description that rebuilds it without."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from lookupvivit.captioning.model import Captioner
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import changes
from lookupvivit.layers.activation_checkpointing import recompute_activations
from lookupvivit.models.lookupvit import check_compressed_size
from lookupvivit.models.registry import create_model
from lookupvivit.profiling.memory_estimate import BUCKET
from lookupvivit.training.data import Batching, preprocessing
from lookupvivit.training.distributed import World
from lookupvivit.training.ema import AveragedSteps
from lookupvivit.training.optimizer import FiniteSteps, build_optimizer
from lookupvivit.weights.files import read_description
from lookupvivit.weights.importing import ImportReport, import_weights


def dtype_on(config: RunConfig, world: World) -> torch.dtype:
    """What the model computes in; ConfigError where the device cannot."""
    precision, device = config.runtime.precision, world.device.type
    if precision == "fp16" and device == "cpu":
        raise ConfigError("runtime.precision: found 'fp16', must be fp32 or bf16 on a CPU")
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("runtime.precision: found 'bf16', must be fp32 or fp16 on this GPU, which has no bfloat16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def shapes_only(config: RunConfig) -> torch.nn.Module:
    """The configured model on the meta device: no time to draw weights and no memory."""
    with torch.device("meta"):
        return build_model(config)


def build_model(config: RunConfig) -> torch.nn.Module:
    """The configured model, freshly initialised; its input size follows the data's clips."""
    model = encoder = _of_catalogue(config)
    if config.data.has_captions:
        try:
            model = Captioner(encoder, **asdict(config.caption))
        except ValueError as error:
            raise ConfigError(f"caption: {error}") from None
    sizes = config.model.multi_resolution
    largest = {
        "model.multi_resolution": (max(sizes["t"]), max(sizes["k"]), max(sizes["k"])) if sizes else None,
        "eval.compressed_size": config.eval.compressed_size,
    }
    for key, size in largest.items():
        if size:
            try:
                check_compressed_size(encoder, size, key)
            except ValueError as error:
                raise ConfigError(str(error)) from None
    return model


def _of_catalogue(config: RunConfig) -> torch.nn.Module:
    """The configured classifier, or the encoder of a captioner with the classifier of one class that it will lose."""
    try:
        return create_model(config.model.name, config.data.num_classes or 1, **model_overrides(config))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model: {error}") from None


def model_overrides(config: RunConfig) -> dict[str, Any]:
    """Arguments of the model's class, the input size among them."""
    data = config.data
    return {"input_size": (data.frames, data.crop, data.crop), **config.model.overrides}


def start_from(model: torch.nn.Module, config: RunConfig) -> ImportReport:
    """Give a model the weights of ``init_from``: a captioner's encoder only, as its decoder starts at random."""
    encoder = _of_catalogue(config) if isinstance(model, Captioner) else model
    report = import_weights(encoder, config.init_from, config.init_inflation, config.init_pixels)
    if isinstance(model, Captioner):
        model.set_encoder(encoder)
        report.notes.append("the encoder's classifiers are left out and the rest of it is frozen")
    return report


def describe(config: RunConfig, class_names: tuple[str, ...]) -> dict[str, Any]:
    """model.json: how to rebuild the model, and what it must be fed."""
    data = config.data
    return {
        "name": config.model.name,
        "num_classes": data.num_classes,
        "overrides": model_overrides(config),
        "class_names": list(class_names),
        "preprocessing": preprocessing(data),
    }


def trained_as(source: str, ours: dict[str, Any]) -> None:
    """ConfigError where the weights in ``source`` do not belong to ``ours``, some keys of a `describe`.

    Another model, other classes or clips of another kind.
    """
    theirs = read_description(source)
    differing = changes({key: theirs.get(key) for key in ours}, ours)
    if differing:
        raise ConfigError(
            f"checkpoint: {source} was trained with other settings than this test's: {'; '.join(differing[:3])}"
        )


def training_facts(config: RunConfig, videos: int) -> dict[str, Any]:
    """What a checkpoint's optimizer state, schedule and sample order depend on: a resumed run must have the same."""
    return {
        "videos": videos,
        "seed": config.seed,
        "batch_size": config.optim.batch_size,
        "optimizer": config.optim.name,
        "ema_decay": config.optim.ema_decay,
        "precision": config.runtime.precision,
        "zero_stage": config.runtime.zero_stage,
    }


def initialize(model: torch.nn.Module, config: RunConfig, batching: Batching, world: World) -> tuple[Any, FiniteSteps]:
    """Hand the model to DeepSpeed: precision, ZeRO stage, accumulation, clipping.

    The engine gets an attribute ``frozen_weights``: float32 tensors by name, as they were handed over.
    """
    import deepspeed

    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    # Allocated whole: DeepSpeed's default, without a bound by the model, is 2 GB for any.
    sharding = {"stage": config.runtime.zero_stage, "reduce_bucket_size": min(trained, BUCKET)}
    precision = config.runtime.precision
    if config.runtime.offload_optimizer:
        sharding["offload_optimizer"] = {"device": "cpu", "pin_memory": world.device.type == "cuda"}
    settings = {
        "train_batch_size": batching.batch,
        "train_micro_batch_size_per_gpu": batching.micro_batch,
        "gradient_accumulation_steps": batching.accumulation,
        "gradient_clipping": config.optim.clip_grad,
        "zero_optimization": sharding,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is vectorised, too, and needs no op compiled
        "zero_allow_untested_optimizer": True,  # SGD with momentum shards like any other element-wise update
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "communication_data_type": "fp32",  # gradients are summed in float32, over ranks and micro-batches alike
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": 10**9,  # the log is ours
    }
    # From the inside out: a compiled block contains its recomputation, and DeepSpeed's hooks see whole blocks.
    if config.runtime.activation_checkpointing:
        recompute_activations(model)
    if config.runtime.compile:
        for block in model.blocks:
            block.compile()
    # DeepSpeed rounds all weights to its precision and keeps float32 copies of those that learn only.
    frozen = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = build_optimizer(model, config.optim, config.runtime.offload_optimizer)
    if config.optim.ema_decay:
        AveragedSteps(optimizer)  # inside the next, so that steps left out move no average
    steps = FiniteSteps(optimizer, world.any, config.optim.skip_non_finite)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    engine.frozen_weights = frozen
    return engine, steps
