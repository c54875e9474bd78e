"""Activation checkpointing, applied to a model from outside: model files do not know about it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lookupvivit import kernels


def set_activation_checkpointing(model: nn.Module, enable: bool = True) -> None:
    """Recompute the activations inside every block in the backward pass, or (``enable=False``) store them again.

    Needs less memory and about a third more time. Dropped paths are recomputed from the same random numbers, so that
    gradients do not change. Parameter names do not change either.

    Args:
        model: has its blocks in ``blocks``, a Perceiver also in ``cross_attends``.
    """
    blocks: Any = model.blocks
    for block in (*blocks, *getattr(model, "cross_attends", ())):
        block.__dict__.pop("forward", None)
        if enable:
            block.forward = partial(_checkpointed, block.forward)


def _checkpointed(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    if not torch.compiler.is_compiling():  # a compiled graph contains the choice of kernels
        forward = partial(_with_kernels, kernels.chosen(), forward)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)


def _with_kernels(name: str, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Recompute with the kernels of the forward pass: autograd may do so in a thread where none were chosen."""
    with kernels.use(name):
        return forward(*inputs, **options)
