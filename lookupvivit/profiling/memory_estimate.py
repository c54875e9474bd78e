"""How much memory a training step takes on one rank, worked out beforehand: nothing is allocated and nothing runs.

Forward and backward pass are traced on tensors without data, so that every activation, gradient and temporary counts
exactly as long as autograd keeps it (also with activation checkpointing). What stands beside them, weights, moments and
DeepSpeed's flat buffers, is arithmetic: what DeepSpeed 0.19 allocates (runtime/engine.py, bf16_optimizer.py,
zero/stage_1_and_2.py, zero/stage3.py), with gradients summed and sent in float32. Left out: what libraries take for
themselves (CUDA's context, scratch space inside an operator) and what an allocator loses by fragmentation. On
a CPU that is much with glibc's malloc as it comes: a ViT of 50 M parameters (float32, SGD, batch 8) took 1.13 GB with
ZeRO 0 and 1.73 GB with ZeRO 1, but 1.04 and 1.29 GB with MALLOC_MMAP_THRESHOLD_=65536, where this says 0.99 and 1.19;
the slow test of this file compares more runs, all float32 on one CPU rank. No run on a GPU has been compared.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from lookupvivit import kernels
from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BUCKET = 500_000_000  # most gradients that DeepSpeed reduces at once (reduce_bucket_size, MEMORY_OPT_ALLREDUCE_SIZE)
MOMENTS = {"sgd": 1, "adamw": 2}


@dataclass(frozen=True)
class Setup:
    """How a model is trained, as far as memory depends on it.

    Attributes:
        precision: "fp32", "bf16" or "fp16".
        optimizer: "sgd" or "adamw".
        zero_stage: 0 to 3.
        world: ranks.
        accumulation: micro-batches per step.
        checkpointing: blocks are computed again in the backward pass.
        averaged: a float32 moving average of the weights is kept, sharded as the master weights are.
        decays: weights decay, for which SGD copies gradients.
        groups: parameters in each group of the optimizer.
        device: "cpu" or "cuda"; on a CPU, memory that is allocated but never written takes none.
        frozen: parameters that are not trained, of which a float32 copy is kept in the CPU's memory.
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


@dataclass(frozen=True)
class Traced:
    """Bytes of one micro-batch's forward and backward pass, weights and input left out.

    Attributes:
        saved: alive after the forward pass.
        peak: the most ever alive, the gradients among it.
    """

    saved: int
    peak: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank.

    Attributes:
        resident: by name, what stays from step to step: weights, master weights, moments, ...
        inputs: the micro-batch.
        saved: activations that the backward pass waits for.
        phases: by name, all that is alive at the worst moment of each part of a step.
    """

    resident: dict[str, int]
    inputs: int
    saved: int
    phases: dict[str, int]

    @property
    def peak(self) -> int:
        return max(self.phases.values())


def estimate(model: nn.Module, input_shape: Iterable[int], setup: Setup, **call: Any) -> Memory:
    """Peak memory of training ``model`` on micro-batches of ``input_shape`` (B, 3, T, H, W).

    Args:
        model: on any device; the meta device is enough.
        call: further keyword arguments of the call, such as ``compressed_size=(8, 9, 9)``.
    """
    shape, dtype = tuple(input_shape), DTYPES[setup.precision]
    traced = trace(
        model,
        shape,
        dtype,
        setup.checkpointing,
        _kept_dtype(setup),
        1 if setup.zero_stage > 1 else setup.accumulation,
        setup.device,
        **call,
    )
    pixels = torch.Size(shape).numel()
    inputs = pixels * (1 + dtype.itemsize)  # the loader's bytes, and what the model sees
    total = sum(setup.groups)
    resident = _resident(setup, total)
    standing = sum(resident.values()) + inputs
    phases = {"forward and backward": standing + _beside_backward(setup, total) + traced.peak}
    phases |= {name: standing + extra for name, extra in _after_backward(setup, total).items()}
    return Memory(resident, inputs, traced.saved, phases)


# What stays, and DeepSpeed's buffers


def _mixed_in_bf16(setup: Setup) -> bool:
    """Whether DeepSpeed trains by its BF16_Optimizer."""
    return setup.precision == "bf16" and setup.zero_stage == 1


def _kept_dtype(setup: Setup) -> torch.dtype:
    """What gradients are kept in while the backward pass goes on; ZeRO-1 sums those of float16 in float32 at once."""
    return torch.float32 if (setup.precision, setup.zero_stage) == ("fp16", 1) else DTYPES[setup.precision]


def _resident(setup: Setup, total: int) -> dict[str, int]:
    stage, weight = setup.zero_stage, DTYPES[setup.precision].itemsize
    share = -(-total // setup.world) if stage else total  # of the optimizer's state
    found = {"weights": weight * (total + setup.frozen), "moments": 4 * MOMENTS[setup.optimizer] * share}
    if setup.frozen and setup.device == "cpu":
        found["copy of frozen weights"] = 4 * setup.frozen
    if stage:
        found["master weights"] = 4 * share  # ZeRO copies float32 weights, too
    if stage == 3:
        # Below 1e9 parameters (max_live_parameters) gathered weights stay, and their shards stand beside them.
        found |= {"weight shards": weight * share, "gradient shards": 4 * share}
    if _mixed_in_bf16(setup):
        found["float32 gradients"] = 4 * total  # of all weights, on every rank
    if stage == 2 and setup.accumulation > 1:
        found["accumulated gradients"] = 4 * share
    if setup.averaged:
        found["moving average"] = 4 * share
    return found


def _bucket(setup: Setup, total: int) -> int:
    """Bytes of ZeRO's reduction bucket."""
    if setup.zero_stage == 0 or _mixed_in_bf16(setup):
        return 0
    return _kept_dtype(setup).itemsize * min(total, BUCKET)


def _beside_backward(setup: Setup, total: int) -> int:
    """The bucket: ZeRO-1 fills it after the backward pass, ZeRO-2 and 3 move every gradient there as it comes."""
    return _bucket(setup, total) if setup.zero_stage == 1 and setup.device != "cpu" else 0


def _after_backward(setup: Setup, total: int) -> dict[str, int]:
    """What reducing the gradients and updating the weights take beside what stays."""
    stage, weight = setup.zero_stage, DTYPES[setup.precision].itemsize
    sent = 4 * min(total, BUCKET)  # a flat float32 copy, on a single rank too
    largest = 4 * max(setup.groups)
    if stage == 0:
        # Single tensors on a CPU, all of a group at once on a GPU (torch's foreach implementations).
        return {"reduction": 4 * total + sent, "update": 4 * total + (0 if setup.device == "cpu" else largest)}
    copies = 1 + (setup.device == "cpu") if setup.optimizer == "adamw" else int(setup.decays)
    temporaries = copies * largest // setup.world
    if _mixed_in_bf16(setup):
        return {"reduction": weight * total + sent, "update": weight * total + temporaries}
    share = 4 * -(-total // setup.world)
    bucket = _bucket(setup, total)
    if stage == 3:
        return {"reduction": bucket + sent // setup.world, "update": temporaries}
    if _kept_dtype(setup).itemsize < 4:  # a flat copy in the bucket's dtype, and that in float32
        sent += sent // 2
    # The own share is copied out of the bucket, and once more into a flat gradient per group.
    return {"reduction": bucket + max(sent, share), "update": share + largest // setup.world + temporaries}


# The passes themselves


def trace(
    model: nn.Module,
    input_shape: Sequence[int],
    dtype: torch.dtype,
    checkpointing: bool = False,
    kept_dtype: torch.dtype | None = None,
    micro_batches: int = 1,
    device: str = "cpu",
    **call: Any,
) -> Traced:
    """Follow the storages of forward and backward passes on tensors without data.

    Args:
        model: left as it is.
        input_shape: (B, 3, T, H, W).
        dtype: of weights and input.
        checkpointing: compute blocks again in the backward pass.
        kept_dtype: gradients are turned into this as they come.
        micro_batches: with more than one, gradients of the first are there while the next is computed.
        device: "cpu" or "cuda", where projections are not folded; all else is taken to be kept alike.
        call: further keyword arguments of the call.
    """
    with FakeTensorMode(), kernels.use(_keeping_alike(kernels.chosen(), device)):
        model = _without_data(model, dtype).train()
        set_activation_checkpointing(model, checkpointing)
        if kept_dtype not in (None, dtype):
            _keep_gradients_in(model, kept_dtype)
        video = torch.empty(*input_shape, dtype=dtype)
        live = _Live()
        live.ignore([video, *model.parameters(), *model.buffers()])
        saved = 0
        with live:
            for _ in range(min(2, micro_batches)):
                before = live.bytes
                output = model(video, **call)
                # what a cross-entropy keeps, which is much of a captioner's vocabulary
                scores = [output[name].float().log_softmax(dim=-1) for name in model.supervised]
                loss = torch.stack([score.sum() for score in scores]).sum()
                del scores
                saved = live.bytes - before
                loss.backward()
                del output, loss
    return Traced(saved, live.peak)


def _keeping_alike(name: str, device: str) -> str:
    """Kernels for the trace, which is on a CPU, that keep what the kernels ``name`` keep on ``device``."""
    return name if device == "cpu" else {"auto": "unfolded", "triton": "cpu"}.get(name, name)


def _without_data(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose floating-point weights are of ``dtype`` and, inside a FakeTensorMode, take no memory."""
    with torch.no_grad():
        twin = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
        for module in twin.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                empty = torch.empty(weight.shape, dtype=dtype)
                setattr(module, name, nn.Parameter(empty, weight.requires_grad))
            for name, buffer in list(module.named_buffers(recurse=False)):
                kind = dtype if buffer.is_floating_point() else buffer.dtype
                setattr(module, name, torch.empty(buffer.shape, dtype=kind))
    return twin


def _keep_gradients_in(model: nn.Module, dtype: torch.dtype) -> None:
    kept: dict[Tensor, Tensor] = {}

    def move(weight: Tensor) -> None:
        kept[weight] = kept[weight].add_(weight.grad) if weight in kept else weight.grad.to(dtype)
        weight.grad = None

    for weight in model.parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(move)


class _Live(TorchDispatchMode):
    """Adds up the storages that operators make, each as long as anything refers to it.

    Attributes:
        bytes: alive now.
        peak: the most ever alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            self.known[tensor.untyped_storage()] = True

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self.known:
            return
        self.known[storage] = True
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.bytes -= size
