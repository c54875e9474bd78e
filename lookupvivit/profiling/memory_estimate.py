"""Estimate the peak memory of a training step on one rank before training: nothing is allocated and nothing runs.

Activations and gradients come from `activation_trace`. Weights, moments and DeepSpeed's flat buffers are arithmetic:
what DeepSpeed 0.19 allocates (runtime/engine.py, bf16_optimizer.py, zero/stage_1_and_2.py, zero/stage3.py), with
gradients summed and communicated in float32.

Not included are the memory of libraries (CUDA's context, scratch space inside an operator) and fragmentation in the
allocator. With the default settings of glibc's malloc, fragmentation is large on a CPU: a ViT of 50 M parameters
(float32, SGD, batch 8) took 1.13 GB with ZeRO 0 and 1.73 GB with ZeRO 1, but 1.04 and 1.29 GB with
MALLOC_MMAP_THRESHOLD_=65536; the estimates are 0.99 and 1.19 GB. tests/integration/test_memory_estimate.py compares
more runs, all in float32 on one CPU rank. No run on a GPU has been compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lookupvivit.profiling.activation_trace import trace_activations
from lookupvivit.profiling.dtypes import DTYPES

# Most gradient elements that DeepSpeed reduces at once (reduce_bucket_size, MEMORY_OPT_ALLREDUCE_SIZE)
REDUCE_BUCKET_SIZE = 500_000_000
NUM_MOMENTS = {"sgd": 1, "adamw": 2}  # moments per weight, by optimizer


@dataclass(frozen=True)
class TrainingSetup:
    """The settings of a training run that its memory depends on.

    Attributes:
        precision: "fp32", "bf16" or "fp16".
        optimizer: "sgd" or "adamw".
        zero_stage: 0 to 3.
        world: number of ranks.
        accumulation: micro-batches per step.
        checkpointing: blocks are recomputed in the backward pass.
        averaged: a float32 moving average of the weights is kept, sharded like the master weights.
        decays: weights decay, for which SGD copies gradients.
        groups: number of parameters in each group of the optimizer.
        device: "cpu" or "cuda". On a CPU, memory that is allocated but never written takes none.
        frozen: number of parameters that are not trained; a float32 copy of them is kept in CPU memory.
    """

    precision: str
    optimizer: str
    zero_stage: int
    world: int
    accumulation: int
    checkpointing: bool
    averaged: bool
    decays: bool
    groups: Sequence[int]
    device: str
    frozen: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and activations."""
        return DTYPES[self.precision]

    @property
    def gradient_dtype(self) -> torch.dtype:
        """The type of gradients during the backward pass; ZeRO-1 sums those of float16 in float32 at once."""
        return torch.float32 if (self.precision, self.zero_stage) == ("fp16", 1) else self.dtype

    @property
    def uses_bf16_optimizer(self) -> bool:
        """Whether DeepSpeed trains with its BF16_Optimizer."""
        return self.precision == "bf16" and self.zero_stage == 1


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one rank.

    Attributes:
        resident: by name, what stays from step to step: weights, master weights, moments, ...
        inputs: the micro-batch.
        saved: activations saved for the backward pass.
        phases: peak of each part of a step, including what is resident, by name.
    """

    resident: dict[str, int]
    inputs: int
    saved: int
    phases: dict[str, int]

    @property
    def peak(self) -> int:
        return max(self.phases.values())


def estimate_memory(model: nn.Module, input_shape: Iterable[int], setup: TrainingSetup, **call: Any) -> MemoryEstimate:
    """Estimate the peak memory of training ``model`` on micro-batches of ``input_shape`` (B, 3, T, H, W).

    Args:
        model: on any device; the meta device is enough.
        call: further keyword arguments of the model's call, such as ``compressed_size=(8, 9, 9)``.
    """
    shape = tuple(input_shape)
    activations = trace_activations(
        model,
        shape,
        setup.dtype,
        checkpointing=setup.checkpointing,
        gradient_dtype=setup.gradient_dtype,
        micro_batches=1 if setup.zero_stage > 1 else setup.accumulation,
        device=setup.device,
        **call,
    )
    inputs = torch.Size(shape).numel() * (1 + setup.dtype.itemsize)  # the loader's uint8, and the model's input
    num_trained = sum(setup.groups)
    resident = _resident(setup, num_trained)
    constant = sum(resident.values()) + inputs
    phases = {"forward and backward": constant + _backward_buffers(setup, num_trained) + activations.peak}
    for name, buffers in _step_buffers(setup, num_trained).items():
        phases[name] = constant + buffers
    return MemoryEstimate(resident, inputs, activations.saved, phases)


def _resident(setup: TrainingSetup, num_trained: int) -> dict[str, int]:
    stage, weight_size = setup.zero_stage, setup.dtype.itemsize
    share = -(-num_trained // setup.world) if stage else num_trained  # of the optimizer's state
    resident = {
        "weights": weight_size * (num_trained + setup.frozen),
        "moments": 4 * NUM_MOMENTS[setup.optimizer] * share,
    }
    if setup.frozen and setup.device == "cpu":
        resident["copy of frozen weights"] = 4 * setup.frozen
    if stage:
        resident["master weights"] = 4 * share  # ZeRO copies float32 weights as well
    if stage == 3:
        # With fewer than 1e9 parameters (max_live_parameters), gathered weights stay in addition to their shards.
        resident |= {"weight shards": weight_size * share, "gradient shards": 4 * share}
    if setup.uses_bf16_optimizer:
        resident["float32 gradients"] = 4 * num_trained  # of all weights, on every rank
    if stage == 2 and setup.accumulation > 1:
        resident["accumulated gradients"] = 4 * share
    if setup.averaged:
        resident["moving average"] = 4 * share
    return resident


def _reduce_bucket(setup: TrainingSetup, num_trained: int) -> int:
    """Bytes of ZeRO's reduction bucket."""
    if setup.zero_stage == 0 or setup.uses_bf16_optimizer:
        return 0
    return setup.gradient_dtype.itemsize * min(num_trained, REDUCE_BUCKET_SIZE)


def _backward_buffers(setup: TrainingSetup, num_trained: int) -> int:
    """Bytes of buffers during the backward pass, in addition to activations and gradients.

    ZeRO-1 fills its bucket after the backward pass. ZeRO-2 and 3 move every gradient there as soon as it is complete.
    """
    return _reduce_bucket(setup, num_trained) if setup.zero_stage == 1 and setup.device != "cpu" else 0


def _step_buffers(setup: TrainingSetup, num_trained: int) -> dict[str, int]:
    """Bytes of buffers while gradients are reduced and weights are updated, in addition to what is resident."""
    stage, weight_size = setup.zero_stage, setup.dtype.itemsize
    sent = 4 * min(num_trained, REDUCE_BUCKET_SIZE)  # a flat float32 copy, on a single rank as well
    largest_group = 4 * max(setup.groups)
    if stage == 0:
        # A CPU updates single tensors, a GPU a whole group at once (torch's foreach implementations).
        gradients, temporaries = 4 * num_trained, 0 if setup.device == "cpu" else largest_group
        return {"reduction": gradients + sent, "update": gradients + temporaries}
    copies = 1 + (setup.device == "cpu") if setup.optimizer == "adamw" else int(setup.decays)
    temporaries = copies * largest_group // setup.world
    if setup.uses_bf16_optimizer:
        gradients = weight_size * num_trained
        return {"reduction": gradients + sent, "update": gradients + temporaries}
    bucket = _reduce_bucket(setup, num_trained)
    if stage == 3:
        return {"reduction": bucket + sent // setup.world, "update": temporaries}
    if setup.gradient_dtype.itemsize < 4:  # one flat copy in the bucket's type and one in float32
        sent += sent // 2
    share = 4 * -(-num_trained // setup.world)
    # This rank's share is copied out of the bucket, and again into one flat gradient per group.
    return {
        "reduction": bucket + max(sent, share),
        "update": share + largest_group // setup.world + temporaries,
    }
