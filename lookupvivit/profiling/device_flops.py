"""The peak speed of a device, to measure model FLOPs utilisation (MFU) by."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
import torch.nn.functional as F

from lookupvivit.profiling.timing import wait_for

# Dense peaks in TFLOP/s of matrix products (half precision on tensor cores with float32 sums, float32 outside them), by
# what torch calls the device; the longest name that fits counts. As in NVIDIA's data sheets (A100, H100, H200, V100,
# L40S, A10, T4, HGX B200) and architecture white papers (Ada GA102/AD102 for the GeForce cards), sparsity left out.
GPUS = {  # name: (half, float32)
    "V100": (125, 15.7),  # SXM2; half is float16, it has no bfloat16
    "V100 PCIE": (112, 14),
    "T4": (65, 8.1),  # as V100
    "A10": (125, 31.2),
    "A100": (312, 19.5),
    "L40S": (362, 91.6),
    "RTX 3090": (71, 35.6),
    "RTX 4090": (165.2, 82.6),
    "H100 PCIe": (756, 51),
    "H100": (989, 67),  # SXM, "H100 80GB HBM3"
    "H200": (989, 67),
    "B200": (2250, 80),
}
VARIANTS = {"NVL", "Laptop", "Ti", "SUPER", "D"}  # words in the name of another card, which is measured


def known_peak(name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s of a GPU by torch's name for it, such as "NVIDIA H100 80GB HBM3"; None for one not in the table."""
    words = name.replace("-", " ").split()
    fitting = [key for key in GPUS if all(word in words for word in key.split())]
    if not fitting or VARIANTS.intersection(words):
        return None
    half, single = GPUS[max(fitting, key=len)]
    return 1e12 * (single if dtype == torch.float32 else half)


@lru_cache(maxsize=8)
def peak(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """(FLOP/s, "data sheet" or "measured"): from the table, or for a CPU or unknown GPU by timing products."""
    known = known_peak(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None
    return (known, "data sheet") if known else (measured_peak(device, dtype), "measured")


def measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP/s of the fastest of several products of two square matrices, as layers take them; 2 per multiply-add."""
    side = 1024 if device.type == "cpu" else 8192  # long enough beside the start of a kernel
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        before = time.perf_counter()
        F.linear(left, right)  # in bfloat16 on older CPUs far ahead of left @ right
        wait_for(device)
        best = min(best, time.perf_counter() - before)
    return 2 * side**3 / best
