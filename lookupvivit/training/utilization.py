"""How much of a device training uses: model FLOPs utilization (MFU) and peak memory."""

from __future__ import annotations

import math
import resource
import sys
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from lookupvivit.config import RunConfig
from lookupvivit.profiling.device_flops import peak_flops
from lookupvivit.profiling.dtypes import DTYPES
from lookupvivit.profiling.flops import Cost, UncountedOperatorError, count_cost
from lookupvivit.training.distributed import World


def training_macs(model: nn.Module, input_shape: tuple[int, ...], **call: Any) -> int:
    """Count multiply-adds of a forward and backward pass: three times the forward pass.

    Frozen modules count once, as they have no backward pass. This holds where they come before all trained modules,
    as a captioner's encoder does.

    Args:
        model: the trained model, best on the meta device.
        input_shape: (B, 3, T, H, W).
        call: further keyword arguments of the model's call.
    """
    cost = count_cost(model, input_shape, **call)
    return 3 * cost.macs - 2 * _frozen_macs(model, cost)


def _frozen_macs(model: nn.Module, cost: Cost, name: str = "") -> int:
    """Multiply-adds of the forward pass inside modules that have parameters, none of them trained."""
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return cost.by_module[name]
    children = ((f"{name}.{child}".lstrip("."), module) for child, module in model.named_children())
    return sum(_frozen_macs(module, cost, path) for path, module in children)


class ModelFlopsUtilization:
    """Model FLOPs utilization (Chowdhery et al., PaLM, appendix B) of one rank.

    Every clip counts with `training_macs` at the compressed size and the kept tokens of its step. What activation
    checkpointing recomputes does not count.

    Args:
        model: the trained model on the meta device.
        config: states the clips' size and the precision.
        world: states the device.
    """

    def __init__(self, model: nn.Module, config: RunConfig, world: World) -> None:
        self.model = model
        self.clip_shape = (1, 3, config.data.frames, config.data.crop, config.data.crop)
        self.peak_flops, _ = peak_flops(world.device, DTYPES[config.runtime.precision])
        self._is_main = world.is_main
        self._flops_per_clip: dict[Any, float] = {}  # by arguments, each counted once
        self._flops = 0.0

    def add(self, call: dict[str, Any], num_clips: int) -> None:
        """Count ``num_clips`` of this rank, trained on with the keyword arguments ``call``."""
        key = tuple(call.items())
        if key not in self._flops_per_clip:
            self._flops_per_clip[key] = self._count(call)
        self._flops += self._flops_per_clip[key] * num_clips

    def _count(self, call: dict[str, Any]) -> float:
        """FLOPs of training on one clip; NaN if the model has an operator of unknown cost, which is printed once."""
        try:
            return 2 * training_macs(self.model, self.clip_shape, **call)  # peaks count a multiply-add as two FLOPs
        except UncountedOperatorError as error:
            if self._is_main and not self._flops_per_clip:
                tqdm.write(f"mfu: unknown; {error}", file=sys.stdout)
            return math.nan

    def report(self, seconds: float) -> float:
        """The share of the device's peak since the last report, which took ``seconds`` of training; NaN if unknown."""
        share = self._flops / seconds / self.peak_flops
        self._flops = 0.0
        return share


def peak_memory(device: torch.device) -> float:
    """Peak memory in GB (1e9 bytes) since the start: tensors on a GPU, resident memory of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # Linux counts in KiB
