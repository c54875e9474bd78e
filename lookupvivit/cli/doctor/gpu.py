"""Check the CUDA devices, and this library's Triton kernels on one of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lookupvivit.cli.doctor import programs
from lookupvivit.cli.doctor.report import Finding, fail, ok, warn

DRIVER = Path("/proc/driver/nvidia/version")
KERNEL_SECONDS = 120.0  # time limit
FREE_FRACTION = 0.8  # with less free memory, another program is using the GPU
TOLERANCE = 1e-3  # relative to the largest value, because TF32 may be enabled
AVOID_KERNELS = "set LOOKUPVIVIT_KERNELS=reference to train without them"


@dataclass(frozen=True)
class Device:
    """A GPU as PyTorch sees it; memory in GB."""

    name: str
    total: float
    free: float
    capability: tuple[int, int]
    bf16: bool


def find_gpus() -> list[Device]:
    """All GPUs, after a small matrix product on each.

    Raises:
        RuntimeError: a GPU computes a wrong result, or this build of PyTorch has no kernels for it.
    """
    return [_describe(index) for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]


def _describe(index: int) -> Device:
    with torch.cuda.device(index):
        free, total = torch.cuda.mem_get_info()
        ones = torch.ones(64, 64, device="cuda")
        if float((ones @ ones)[0, 0]) != 64:
            raise RuntimeError(f"GPU {index} computes a wrong matrix product")
        properties = torch.cuda.get_device_properties(index)
        return Device(
            name=properties.name,
            total=total / 1e9,
            free=free / 1e9,
            capability=(properties.major, properties.minor),
            bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        )


def driver_version() -> str | None:
    """The version of the NVIDIA driver; None if there is none."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        completed = subprocess.run(query, capture_output=True, text=True, timeout=30)
        if completed.returncode == 0 and completed.stdout.strip():
            return completed.stdout.splitlines()[0].strip()
    return DRIVER.read_text().splitlines()[0] if DRIVER.exists() else None


def check_cuda(gpus: Sequence[Device], driver: str | None, build: str | None = torch.version.cuda) -> Finding:
    """Report the GPUs that PyTorch sees, and why it sees none despite a driver.

    Args:
        build: the CUDA version that PyTorch was built for; None for a CPU build.
    """
    if not gpus and driver is None:
        return ok("no GPU: CPU only", devices=[])
    if not gpus:
        reason = f"is built for CUDA {build}" if build else "is built without CUDA"
        return fail(
            f"driver {driver}, but PyTorch, which {reason}, sees no GPU",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES; install the PyTorch build that fits the driver",
        )
    devices = "; ".join(
        f"{gpu.name}, {gpu.free:.1f} of {gpu.total:.1f} GB free, bf16 {'yes' if gpu.bf16 else 'no'}" for gpu in gpus
    )
    text = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: {devices}; driver {driver or 'unknown'}, CUDA {build}"
    facts = {"devices": [asdict(gpu) for gpu in gpus], "driver": driver}
    if not all(gpu.bf16 for gpu in gpus):
        return warn(text, "set runtime.precision=fp16 or fp32", **facts)
    if any(gpu.free < FREE_FRACTION * gpu.total for gpu in gpus):
        return warn(text, "another program occupies GPU memory; nvidia-smi names it", **facts)
    return ok(text, **facts)


def check_kernels(has_gpu: bool, limit: float = KERNEL_SECONDS) -> Finding:
    """Compile and run the Triton kernels in a child process, and compare them with the reference implementation."""
    if not has_gpu:
        return ok("not needed without a GPU")
    code = "from lookupvivit.cli.doctor.gpu import compare_kernels; compare_kernels()"
    outcome = programs.run(code, limit)
    if outcome.status != 0:
        return fail(
            f"the kernels' test {outcome.ending} ({outcome.reason})",
            f"{AVOID_KERNELS}; compiling needs a C compiler and Python.h (gcc, python3-dev)",
        )
    facts, difference = outcome.answer, outcome.answer["difference"]
    if difference > TOLERANCE:
        found = f"the kernels differ from the reference by {difference:.2g}, expected at most {TOLERANCE:g}"
        return fail(found, AVOID_KERNELS, **facts)
    return ok(
        f"{facts['version']}: the kernels compile and agree with the reference to {difference:.1g} "
        f"({outcome.seconds:.0f} s)",
        **facts,
    )


def compare_kernels() -> None:
    """The child process of `check_kernels`: prints JSON."""
    import triton

    from lookupvivit import kernels

    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, tokens, 64, device="cuda") for tokens in (32, 256, 256))
    outputs = []
    for name in ("triton", "reference"):
        with kernels.use(name):
            gathered, weights = kernels.gather(q, k, v)
            outputs.append((gathered, kernels.infuse(weights, gathered)))
    differences = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*outputs, strict=True)]
    print(json.dumps({"version": triton.__version__, "difference": max(differences)}))
