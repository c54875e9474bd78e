"""The two halves of the bidirectional cross-attention, behind one pair of functions and several implementations.

=============  =========================================================  ======================================
name           what it is                                                 where it runs
=============  =========================================================  ======================================
``reference``  the equations in plain PyTorch; writes A down and keeps    everywhere; the oracle of the others
               it for the backward pass
``folded``     the same, and the layer's projections of the many lookup   everywhere; chosen on a CPU in float32
               tokens moved to the side of the few compressed ones:       where it leaves few multiplications
               `lookupvivit.layers.mhbc`
``cpu``        PyTorch's flash attention, used both ways; A never exists  CPU
``triton``     kernels of its own; A never exists                         GPU (CPU under ``TRITON_INTERPRET=1``)
=============  =========================================================  ======================================

``auto``, the default, takes the fastest for the device and the size, as measured on a CPU; ``unfolded`` is the same but
that it never folds. Some things only the reference can do, and it is taken for them whatever was chosen: giving A away;
programs that leave Python (`torch.export`, ONNX, tracing), which must not need the operators of this package; forward
derivatives and the transforms of `torch.func`; and sets without tokens. Choose with ``kernels.use("reference")`` as a
context, or with the environment variable ``LOOKUPVIVIT_KERNELS``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lookupvivit.kernels import fused, reference

__all__ = [
    "NAMES",
    "FoldedWeights",
    "KernelsError",
    "PlainWeights",
    "Weights",
    "chosen",
    "fold",
    "folds",
    "gather",
    "infuse",
    "use",
]

NAMES = ("auto", "unfolded", "reference", "folded", "cpu", "triton")
VARIABLE = "LOOKUPVIVIT_KERNELS"
# Elements of A from which it is faster not to write it down (float32 on 2 cores): a smaller one stays in the cache.
# No GPU has been asked yet.
LARGE = 2**23
# Share of the multiplications up to which folding is faster: its products are less square. In float32 on 2 cores 0.50
# of them took 0.74 of the time and 0.70 took 1.1; in bfloat16, on matrix units, 0.50 took 1.1.
FOLDED_SHARE = 0.6
WIDEST = 128  # head width that the GPU kernels have tiles for
HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")  # as Triton reads it
AMPERE = 8  # compute capability, the major part; older GPUs lack the shared memory that the kernels' tiles take


class KernelsError(ValueError):
    """No such implementation, or one that cannot run on the tensors it is given."""


@dataclass
class PlainWeights:
    """The attention of a gather, written down: ``attention`` is A (B, H, M, N)."""

    attention: Tensor


@dataclass
class FoldedWeights(PlainWeights):
    """Weights of a gather that was folded: they tell the infusion to fold as well."""


Weights = PlainWeights | fused.FusedWeights


_chosen = os.environ.get(VARIABLE) or "auto"


def chosen() -> str:
    """The name in force.

    Raises:
        KernelsError: the environment names none.
    """
    return _known(_chosen, VARIABLE)


def _known(name: str, source: str) -> str:
    if name not in NAMES:
        raise KernelsError(f"{source}: {name!r} is no implementation of the exchange; choose one of {', '.join(NAMES)}")
    return name


@contextmanager
def use(name: str) -> Iterator[None]:
    """Choose the implementation within a ``with`` block, for all threads.

    A backward pass uses what its forward pass used, also where it runs after the block; a compiled model is compiled
    again for another choice.

    Raises:
        KernelsError: no such name, or (from the call that needs it) a name that cannot run on the tensors' device.
    """
    global _chosen
    before, _chosen = _chosen, _known(name, "kernels.use")
    try:
        yield
    finally:
        _chosen = before


def gather(q: Tensor, k: Tensor, v: Tensor, return_attention: bool = False) -> tuple[Tensor, Weights]:
    """Lookup to compressed, Algorithm 1 lines 4-5: read from the lookup tokens.

    Args:
        q: (B, H, M, d) from the compressed tokens.
        k, v: (B, H, N, d) from the lookup tokens.
        return_attention: have the weights hold A itself.

    Returns:
        A v (B, H, M, d) with A = softmax over the N lookup tokens of q k^T / sqrt(d), and the weights for
        :func:`infuse`: :class:`PlainWeights` where A was asked for.
    """
    engine = "reference" if return_attention else _engine(q, k)
    if engine == "reference":
        out, attention = reference.gather(q, k, v)
        return out, PlainWeights(attention)
    return fused.gather(q, k, v, engine)


def infuse(weights: Weights, v: Tensor) -> Tensor:
    """Compressed to lookup, Algorithm 2 line 3: hand back along the same weights, transposed, not renormalised.

    Args:
        weights: from :func:`gather`.
        v: (B, H, M, d) from the refined compressed tokens.

    Returns:
        A^T v (B, H, N, d).
    """
    if isinstance(weights, PlainWeights):
        return reference.infuse(weights.attention, v)
    return fused.infuse(weights, v)


def folds(q: Tensor, k: Tensor) -> bool:
    """Whether a layer with these queries and keys shall fold its projections and use :func:`fold`, not `gather`."""
    if _chosen != "auto" or _leaves_python():
        return _chosen == "folded" and not _leaves_python()
    if q.device.type != "cpu" or q.dtype.itemsize < 4:
        return False
    (_, h, m, d), n = q.shape, k.shape[2]
    width = h * d
    folded, plain = h * m * n * width + m * width**2, n * width**2 + m * n * width
    return folded <= FOLDED_SHARE * plain


def fold(q: Tensor, k: Tensor) -> FoldedWeights:
    """The weights of (B, H, M, d) queries and (B, H, N, d) keys, for a layer that folds."""
    return FoldedWeights(reference.attend(q, k))


def _leaves_python() -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _transformed() -> bool:
    """Within a forward derivative or a transform of `torch.func`: custom operators know neither."""
    level = None if torch.compiler.is_compiling() else torch._C._functorch.maybe_current_level()
    return forward_ad._current_level >= 0 or level is not None


def _engine(q: Tensor, k: Tensor) -> str:
    """The implementation for these tensors, by name."""
    name = chosen()
    if _leaves_python() or _transformed() or 0 in (q.shape[2], k.shape[2]):
        return "reference"
    if name == "folded":  # what reaches this was not folded
        return "reference"
    device = q.device.type
    if name == "triton":
        _require(name, _unfit_for_triton(q))
    if name == "cpu":
        _require(name, None if device == "cpu" else f"tensors on {device}")
    if name not in ("auto", "unfolded"):
        return name
    if q.shape[:3].numel() * k.shape[2] < LARGE:
        return "reference"
    if device == "cuda":
        return "reference" if _unfit_for_triton(q) else "triton"
    return "cpu" if device == "cpu" else "reference"


def _require(name: str, obstacle: str | None) -> None:
    if obstacle:
        raise KernelsError(f"the exchange was told to use {name!r}, found {obstacle}; choose 'auto' or 'reference'")


def _unfit_for_triton(q: Tensor) -> str | None:
    """Why the GPU kernels cannot take these queries, None if they can."""
    if not HAS_TRITON:
        return "no package triton"
    if not (q.is_cuda or INTERPRETED):
        return f"tensors on {q.device.type}"
    if torch.version.hip or (q.is_cuda and torch.cuda.get_device_properties(q.device).major < AMPERE):
        return "a GPU that is not NVIDIA's, or older than Ampere"
    if q.dtype == torch.float64:
        return "float64"
    return f"heads of width {q.shape[-1]}, more than {WIDEST}" if q.shape[-1] > WIDEST else None
