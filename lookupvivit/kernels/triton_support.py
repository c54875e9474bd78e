"""Which tensors the Triton kernels accept; does not import Triton, which is not installed everywhere."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")  # as Triton reads it
MAX_HEAD_WIDTH = 128  # the widest head that the kernels have tiles for
MIN_COMPUTE_CAPABILITY = 8  # Ampere; older GPUs lack the shared memory that the tiles need


def obstacle(q: Tensor) -> str | None:
    """What prevents the kernels from running on queries (B, H, M, d); None if nothing does."""
    if not HAS_TRITON:
        return "a machine without the package triton"
    if not (q.is_cuda or INTERPRETED):
        return f"tensors on {q.device.type}"
    if torch.version.hip or (q.is_cuda and torch.cuda.get_device_properties(q.device).major < MIN_COMPUTE_CAPABILITY):
        return "a GPU that is not from NVIDIA, or older than Ampere"
    if q.dtype == torch.float64:
        return "float64"
    if q.shape[-1] > MAX_HEAD_WIDTH:
        return f"heads of width {q.shape[-1]}, more than {MAX_HEAD_WIDTH}"
    return None
