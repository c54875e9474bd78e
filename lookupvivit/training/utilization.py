"""How much of a device training uses: model FLOPs utilisation, and peak memory."""

from __future__ import annotations

import resource
from typing import Any

import torch
from torch import nn

from lookupvivit.captioning.model import Captioner
from lookupvivit.config import RunConfig
from lookupvivit.profiling.device_flops import peak
from lookupvivit.profiling.flops import count_from_shapes
from lookupvivit.profiling.memory_estimate import DTYPES
from lookupvivit.training.distributed import World


def training_macs(model: nn.Module, input_shape: tuple[int, ...], **call: Any) -> int:
    """Multiply-adds of forward and backward pass: three times the forward pass, but a frozen encoder's one time.

    Args:
        model, input_shape, call: as for `count_from_shapes`.
    """
    macs = 3 * count_from_shapes(model, input_shape, **call)
    if isinstance(model, Captioner):
        macs -= 2 * count_from_shapes(model.memory, input_shape, **call)
    return macs


class Utilisation:
    """Model FLOPs utilisation (Chowdhery et al., PaLM, appendix B) of one rank since the last report.

    A clip costs three times its forward pass, at the compressed size of its step, but a frozen encoder one time; what
    activation checkpointing computes again does not count. Each size is counted once.

    Args:
        model: the trained model on the meta device.
    """

    def __init__(self, model: nn.Module, config: RunConfig, world: World) -> None:
        self.model = model
        self.shape = (1, 3, config.data.frames, config.data.crop, config.data.crop)
        self.peak, _ = peak(world.device, DTYPES[config.runtime.precision])
        self.flops: dict[Any, int] = {}  # of training on a clip, by compressed size
        self.done = 0

    def note(self, call: dict[str, Any], clips: int) -> None:
        """``clips`` of this rank are trained on with the call's keyword arguments."""
        size = call.get("compressed_size")
        if size not in self.flops:
            self.flops[size] = 2 * training_macs(self.model, self.shape, **call)
        self.done += self.flops[size] * clips

    def report(self, seconds: float) -> float:
        """Share of the peak over these seconds of training, and start anew."""
        share = self.done / seconds / self.peak
        self.done = 0
        return share


def peak_memory(device: torch.device) -> float:
    """GB (1e9 bytes), the most since the start: of tensors on a GPU, or resident memory of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # Linux counts in KiB
