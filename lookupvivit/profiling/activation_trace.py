"""Memory of forward and backward passes, traced on tensors without data: nothing is allocated and nothing runs.

Every activation, gradient and temporary counts as long as autograd keeps it, also with activation checkpointing.
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


@dataclass(frozen=True)
class ActivationMemory:
    """Bytes of one micro-batch's forward and backward pass, without weights and input.

    Attributes:
        saved: alive after the forward pass.
        peak: most alive at any time, including gradients.
    """

    saved: int
    peak: int


def trace_activations(
    model: Any,
    input_shape: Sequence[int],
    dtype: torch.dtype,
    *,
    checkpointing: bool = False,
    gradient_dtype: torch.dtype | None = None,
    micro_batches: int = 1,
    device: str = "cpu",
    **call: Any,
) -> ActivationMemory:
    """Trace the tensor storages of forward and backward passes.

    Args:
        model: a model of the registry, on any device; it is not changed.
        input_shape: (B, 3, T, H, W).
        dtype: of weights and input.
        checkpointing: recompute blocks in the backward pass.
        gradient_dtype: the type that each gradient is converted to as soon as it is complete; by default ``dtype``.
        micro_batches: with more than one, the gradients of the first exist while the second is computed.
        device: "cpu" or "cuda". On a GPU, projections are not folded; otherwise both are taken to keep the same.
        call: further keyword arguments of the model's call.
    """
    with FakeTensorMode(), kernels.use(_kernels_for_trace(kernels.chosen(), device)):
        model = _without_data(model, dtype).train()
        set_activation_checkpointing(model, checkpointing)
        if gradient_dtype not in (None, dtype):
            _convert_gradients(model, gradient_dtype)
        video = torch.empty(*input_shape, dtype=dtype)
        storages = _LiveStorages()
        storages.ignore([video, *model.parameters(), *model.buffers()])
        saved = 0
        with storages:
            for _ in range(min(2, micro_batches)):
                before = storages.bytes
                output = model(video, **call)
                # Log-probabilities, as cross-entropy keeps them: much memory for the vocabulary of a captioner.
                scores = [output[name].float().log_softmax(dim=-1) for name in model.supervised]
                loss = torch.stack([score.sum() for score in scores]).sum()
                del scores
                saved = storages.bytes - before
                loss.backward()
                del output, loss
    return ActivationMemory(saved, storages.peak)


def _kernels_for_trace(name: str, device: str) -> str:
    """The kernels that save on a CPU, where the trace runs, what the kernels ``name`` save on ``device``."""
    return name if device == "cpu" else {"auto": "unfolded", "triton": "cpu"}.get(name, name)


def _without_data(model: nn.Module, dtype: torch.dtype) -> Any:
    """A copy whose floating-point weights have type ``dtype`` and, inside a FakeTensorMode, take no memory."""
    with torch.no_grad():
        twin = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
        for module in twin.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                empty = torch.empty(weight.shape, dtype=dtype)
                setattr(module, name, nn.Parameter(empty, weight.requires_grad))
            for name, buffer in list(module.named_buffers(recurse=False)):
                buffer_dtype = dtype if buffer.is_floating_point() else buffer.dtype
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer_dtype))
    return twin


def _convert_gradients(model: nn.Module, dtype: torch.dtype) -> None:
    """Move each gradient to a tensor of type ``dtype`` as soon as it is complete, as ZeRO does."""
    converted: dict[Tensor, Tensor] = {}

    def convert(weight: Tensor) -> None:
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        converted[weight] = converted[weight].add_(gradient) if weight in converted else gradient.to(dtype)

    for weight in model.parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(convert)


class _LiveStorages(TorchDispatchMode):
    """Sums the sizes of all storages that operators create, each while anything refers to it.

    Attributes:
        bytes: alive now.
        peak: most alive at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Do not count the storages of these tensors."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = True
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._release, storage.nbytes())

    def _release(self, size: int) -> None:
        self.bytes -= size
