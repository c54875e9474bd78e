"""The exchange on the CPU in single and double precision: a few heads of A at a time, which stay in the cache.

PyTorch's flash attention (`cpu_flash`) computes A in small tiles, and again for the infusion and for the gradients of
each direction. Here, the infusion uses the A of the gather, unless it takes too much memory, and one pass over A gives
the gradients of both directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lookupvivit.kernels.buffers import token_major, workspace

# Elements of A in a chunk, per thread: in single precision 4 MiB, about the share of a core in the last level of cache.
CHUNK = 2**20

# Bytes of A that a gather keeps for the infusion at most. A larger A is computed twice.
LARGEST_KEPT = 2**29

Part = tuple[int, slice]  # a sample and some of its heads


def gather(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return A v (B, H, M, d), and A (B, H, M, N) or, if that is too large to keep, an empty tensor."""
    out, attention = token_major(q), workspace(kept_shape(q, k), q)
    for part, chunk in _chunks(q, k, attention if attention.numel() else _one_chunk(q, k)):
        torch.bmm(chunk, v[part], out=out[part])
    return out, attention


def kept_shape(q: Tensor, k: Tensor) -> tuple[int, ...]:
    """Shape of the second result of `gather`."""
    shape = (*q.shape[:3], k.shape[2])
    return shape if math.prod(shape) * q.dtype.itemsize <= LARGEST_KEPT else (0,)


def gather_again(q: Tensor, k: Tensor, lse: None, v: Tensor) -> Tensor:
    """Return A v (B, H, M, d)."""
    out = token_major(q)
    for part, chunk in _chunks(q, k, _one_chunk(q, k)):
        torch.bmm(chunk, v[part], out=out[part])
    return out


def infuse(q: Tensor, k: Tensor, attention: Tensor, w: Tensor) -> Tensor:
    """Return A^T w (B, H, N, d), where ``attention`` is the second result of `gather`."""
    out = token_major(k)
    kept = ((part, attention[part]) for part in _parts(q, k))
    for part, chunk in kept if attention.numel() else _chunks(q, k, _one_chunk(q, k)):
        torch.bmm(chunk.mT, w[part], out=out[part])
    return out


def backward(
    q: Tensor,
    k: Tensor,
    lse: None,
    gathered: tuple[Tensor, Tensor, Tensor] | None,
    infused: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k and v; `fused` has the equations, `cpu_flash.backward` the arguments."""
    products = []  # d_A is the sum of x y^T, and r that of rowsum(x * z), over these (x, y, z)
    if gathered is not None:
        v, out, d_out = gathered
        products.append((d_out, v, out))
    if infused is not None:
        w, d_w, d_lookup = infused
        products.append((w, d_lookup, d_w))
    d_q, d_k, d_v, scale = token_major(q), token_major(k), token_major(k), q.shape[-1] ** -0.5
    memory, scores_memory = _one_chunk(q, k, copies=2).unflatten(0, (2, -1))
    for part, chunk in _chunks(q, k, memory):
        if gathered is not None:
            torch.bmm(chunk.mT, d_out[part], out=d_v[part])
        r = torch.stack([(x[part] * z[part]).sum(-1, keepdim=True) for x, _, z in products]).sum(0)  # (h, M, 1)
        d_scores = -r
        for x, y, _ in products:
            d_scores = torch.baddbmm(d_scores, x[part], y[part].mT, out=scores_memory[: len(chunk)])
        d_scores.mul_(chunk).mul_(scale)
        torch.bmm(d_scores, k[part], out=d_q[part])
        torch.bmm(d_scores.mT, q[part], out=d_k[part])
    return d_q, d_k, None if gathered is None else d_v


def _chunks(q: Tensor, k: Tensor, memory: Tensor) -> Iterator[tuple[Part, Tensor]]:
    """Compute A (h, M, N) of each part: in its place of ``memory`` (B, H, M, N), or all in the same place (h, M, N)."""
    for part in _parts(q, k):
        chunk = memory[part] if memory.ndim == 4 else memory[: len(q[part])]
        torch.baddbmm(chunk, q[part], k[part].mT, beta=0, alpha=q.shape[-1] ** -0.5, out=chunk)
        yield part, torch.softmax(chunk, dim=-1, out=chunk)


def _parts(q: Tensor, k: Tensor) -> list[Part]:
    """Divide the samples and heads."""
    step = _heads_per_chunk(q, k)
    return [(sample, slice(i, i + step)) for sample in range(q.shape[0]) for i in range(0, q.shape[1], step)]


def _heads_per_chunk(q: Tensor, k: Tensor) -> int:
    elements = q.shape[2] * k.shape[2]
    return min(q.shape[1], max(1, torch.get_num_threads() * CHUNK // elements))


def _one_chunk(q: Tensor, k: Tensor, copies: int = 1) -> Tensor:
    return workspace((copies * _heads_per_chunk(q, k), q.shape[2], k.shape[2]), q)
