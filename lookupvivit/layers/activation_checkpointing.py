"""Activation checkpointing, put on a model from outside: no model knows of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lookupvivit import kernels


def recompute_activations(model: nn.Module, enable: bool = True) -> None:
    """Compute the activations inside every block again in the backward pass, or keep them again.

    Less memory for a third more time; the random numbers of dropped paths are drawn again alike, so that no gradient
    changes. Parameter names do not change either.
    """
    for block in (*model.blocks, *getattr(model, "cross_attends", ())):
        block.__dict__.pop("forward", None)
        if enable:
            block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    if not torch.compiler.is_compiling():  # a compiled graph holds its choice of kernels
        forward = partial(_with_kernels, kernels.chosen(), forward)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)


def _with_kernels(name: str, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """The same kernels again, whatever is chosen by the time of the backward pass."""
    with kernels.use(name):
        return forward(*inputs, **options)
