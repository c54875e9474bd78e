"""Choose the implementation of the bidirectional cross-attention (in short, the exchange), and call it.

=============  =========================================================  ======================================
name           implementation                                             runs on
=============  =========================================================  ======================================
``reference``  the equations in plain PyTorch; materialises the           every device; the oracle that the others
               attention matrix A and keeps it for the backward pass      are tested against
``folded``     as ``reference``, with the layer's projections of the N    every device
               lookup tokens moved to the M compressed tokens
               (`lookupvivit.layers.mhbc`)
``cpu``        A by a few heads at a time, kept until the infusion; in    CPU
               half precision PyTorch's flash attention, without A
``triton``     Triton kernels of this package, without A                  GPU (CPU if ``TRITON_INTERPRET=1``)
=============  =========================================================  ======================================

``auto``, the default, takes the fastest of them for the device and the sizes. For a GPU, `tuned` has what was measured:
the number of elements of A from which not materialising it pays, and the fastest implementation of each direction
(`measured`), which is ``triton`` where nothing was measured. ``unfolded`` does the same without ever folding.

Some calls always use the reference, whatever was chosen:

- calls that return A;
- `torch.export`, ONNX and tracing: an exported program must not depend on the operators of this package, and
  `torch.fx` does not know the sizes that the choice depends on;
- forward-mode derivatives and the transforms of `torch.func`, which the operators do not support;
- empty token sets.

Choose with the context manager ``kernels.use("reference")`` or the environment variable ``LOOKUPVIVIT_KERNELS``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.fx
from torch import Tensor
from torch.autograd import forward_ad

from lookupvivit.errors import UserError
from lookupvivit.kernels import fused, reference, triton_support, tuned

NAMES = ("auto", "unfolded", "reference", "folded", "cpu", "triton")
VARIABLE = "LOOKUPVIVIT_KERNELS"

# `auto` avoids materialising A from this number of elements on: a smaller A stays in the cache. Measured in float32 on
# 2 CPU cores; for a GPU, `tuned` may have another number.
LARGE = 2**23

# `auto` folds if that leaves at most this share of the multiplications. Folded matrix products are less square and
# therefore slower per multiplication: in float32 on 2 CPU cores a share of 0.50 took 0.74 of the time and a share of
# 0.70 took 1.1 times as long. In bfloat16, on matrix units, even a share of 0.50 took 1.1 times as long.
FOLDED_SHARE = 0.6


class KernelsError(UserError):
    """An unknown implementation, or one that cannot run on the given tensors."""


@dataclass
class PlainWeights:
    """The materialised attention of a gather: ``attention`` is A (B, H, M, N)."""

    attention: Tensor


@dataclass
class FoldedWeights(PlainWeights):
    """The materialised attention of a folded gather; the infusion that receives it folds, too."""


Weights = PlainWeights | fused.FusedWeights


# A context variable, so that a choice made in one thread does not affect the models that others are running. Threads
# start with the default, and autograd runs backward passes in threads of its own. Therefore nothing in a backward pass
# reads the variable: operators save the implementation of their forward pass, and activation checkpointing sets it
# again before it recomputes a block. torch.compile guards on `get` (torch 2.14).
_choice: ContextVar[str] = ContextVar("lookupvivit_kernels", default=os.environ.get(VARIABLE) or "auto")


def chosen() -> str:
    """Return the name that is in force in this thread.

    Raises:
        KernelsError: the environment variable names no implementation.
    """
    return _require_name(_choice.get(), VARIABLE)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Choose the implementation within a ``with`` block, for the current thread.

    A backward pass uses the implementation of its forward pass, even if it runs after the block or in another thread.
    A compiled model is compiled again for another choice.

    Raises:
        KernelsError: ``name`` is not in `NAMES`. If the implementation does not support the device or dtype of the
            tensors, the call of :func:`gather` raises it.
    """
    token = _choice.set(_require_name(name, "kernels.use"))
    try:
        yield
    finally:
        _choice.reset(token)


def gather(q: Tensor, k: Tensor, v: Tensor, return_attention: bool = False) -> tuple[Tensor, Weights]:
    """Lookup to compressed (l->p), Algorithm 1, lines 4-5: attend to the lookup tokens.

    Args:
        q: (B, H, M, d) from the compressed tokens.
        k, v: (B, H, N, d) from the lookup tokens.
        return_attention: materialise A and return it in :class:`PlainWeights`.

    Returns:
        A v (B, H, M, d), where A = softmax over the N lookup tokens of q k^T / sqrt(d), and the weights for
        :func:`infuse`.
    """
    implementation = "reference" if return_attention else _implementation_for(q, k)
    if implementation == "reference":
        out, attention = reference.gather(q, k, v)
        return out, PlainWeights(attention)
    return fused.gather(q, k, v, implementation)


def infuse(weights: Weights, v: Tensor) -> Tensor:
    """Compressed to lookup (p->l), Algorithm 2, line 3: apply the same attention transposed, without renormalising.

    Args:
        weights: from :func:`gather`.
        v: (B, H, M, d) from the refined compressed tokens.

    Returns:
        A^T v (B, H, N, d).
    """
    if isinstance(weights, PlainWeights):
        return reference.infuse(weights.attention, v)
    return fused.infuse(weights, v)


def should_fold(q: Tensor, k: Tensor) -> bool:
    """Whether a layer with these queries and keys should fold its projections, with :func:`fold` for `gather`."""
    if _leaves_python(q):
        return False
    name = _choice.get()
    if name != "auto":
        return name == "folded"
    if q.device.type != "cpu" or q.dtype.itemsize < 4:
        return False
    (_, h, m, d), n = q.shape, k.shape[2]
    width = h * d
    folded = h * m * n * width + m * width**2
    unfolded = n * width**2 + m * n * width
    return folded <= FOLDED_SHARE * unfolded


def fold(q: Tensor, k: Tensor) -> FoldedWeights:
    """The attention of queries (B, H, M, d) to keys (B, H, N, d), for a layer that folds its projections."""
    return FoldedWeights(reference.attend(q, k))


def _implementation_for(q: Tensor, k: Tensor) -> str:
    """Return "reference", "cpu", "triton" or "measured" for these queries and keys."""
    name = chosen()
    # A layer that folds does not come here: for every other caller, "folded" is the reference.
    if name in ("reference", "folded") or _leaves_python(q) or _is_transformed() or 0 in (q.shape[2], k.shape[2]):
        return "reference"
    if name == "triton":
        _require_no_obstacle(name, triton_support.obstacle(q))
        return name
    if name == "cpu":
        _require_no_obstacle(name, None if q.device.type == "cpu" else f"tensors on {q.device.type}")
        return name
    on_gpu = q.device.type == "cuda" and triton_support.obstacle(q) is None
    if q.shape[:3].numel() * k.shape[2] < (tuned.fused_from(tuned.device_name(q.device), LARGE) if on_gpu else LARGE):
        return "reference"
    if on_gpu:
        return "measured"
    return "cpu" if q.device.type == "cpu" else "reference"


def _leaves_python(q: Tensor) -> bool:
    """Whether the call is recorded: into a program that runs without this package, or into a graph of `torch.fx`."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing() or isinstance(q, torch.fx.Proxy)


def _is_transformed() -> bool:
    """Whether the call is part of a forward-mode derivative or of a transform of `torch.func`."""
    level = None if torch.compiler.is_compiling() else torch._C._functorch.maybe_current_level()
    return forward_ad._current_level >= 0 or level is not None


def _require_name(name: str, source: str) -> str:
    if name not in NAMES:
        raise KernelsError(f"{source}: found {name!r}, expected one of {', '.join(NAMES)}")
    return name


def _require_no_obstacle(name: str, obstacle: str | None) -> None:
    if obstacle is not None:
        raise KernelsError(f"kernels: found {name!r} for {obstacle}, expected 'auto' or 'reference'")
