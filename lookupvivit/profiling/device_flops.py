"""The peak speed of a device, the reference of model FLOPs utilization (MFU). A multiply-add counts as two FLOPs."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
import torch.nn.functional as F

from lookupvivit.profiling.timing import synchronize

# Dense peaks of matrix products in TFLOP/s: (half precision on tensor cores with float32 sums, float32 outside them).
# Keys are parts of torch's device names; the longest one that matches counts. Sources: NVIDIA's data sheets (A100,
# H100, H200, V100, L40S, A10, T4, HGX B200) and architecture white papers (Ada GA102/AD102 for the GeForce cards),
# without sparsity.
GPUS = {
    "V100": (125, 15.7),  # SXM2; half means float16, as it has no bfloat16
    "V100 PCIE": (112, 14),
    "T4": (65, 8.1),  # half as for V100
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
VARIANTS = {
    "MIG",
    "NVL",
    "Laptop",
    "Ti",
    "SUPER",
    "D",
}  # words of other cards, or parts of one, which are measured


@lru_cache(maxsize=8)
def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Peak in FLOP/s and its origin: "data sheet" for a known GPU, "measured" for other devices."""
    known = data_sheet_peak(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None
    return (known, "data sheet") if known else (measure_peak(device, dtype), "measured")


def data_sheet_peak(name: str, dtype: torch.dtype) -> float | None:
    """Peak of a GPU in FLOP/s by torch's name for it, such as "NVIDIA H100 80GB HBM3"; None if it is not listed."""
    words = name.replace("-", " ").split()
    matches = [key for key in GPUS if all(word in words for word in key.split())]
    if not matches or VARIANTS.intersection(words):
        return None
    half, single = GPUS[max(matches, key=len)]
    return 1e12 * (single if dtype == torch.float32 else half)


def measure_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP/s of the fastest product of two square matrices within ``seconds``."""
    side = 1024 if device.type == "cpu" else 8192  # large enough to hide the launch of a kernel
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        F.linear(left, right)  # much faster than left @ right in bfloat16 on older CPUs
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
