"""CUDA devices, and the kernels of this library on one."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lookupvivit.cli.doctor import programs
from lookupvivit.cli.doctor.report import Finding, fail, ok, warn

DRIVER = Path("/proc/driver/nvidia/version")
KERNEL_SECONDS = 120.0
OCCUPIED = 0.8  # share of free memory below which another program is at work


@dataclass(frozen=True)
class Device:
    """A GPU as torch sees it; memory in GB."""

    name: str
    total: float
    free: float
    capability: tuple[int, int]
    bf16: bool


def devices() -> list[Device]:
    """All GPUs, after a small matrix product on each: a build without their kernels raises here."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        with torch.cuda.device(index):
            free, total = torch.cuda.mem_get_info()
            square = torch.ones(64, 64, device="cuda")
            if float((square @ square)[0, 0]) != 64:
                raise RuntimeError(f"GPU {index} computes wrongly")
            facts = torch.cuda.get_device_properties(index)
            found.append(
                Device(
                    facts.name,
                    total / 1e9,
                    free / 1e9,
                    (facts.major, facts.minor),
                    torch.cuda.is_bf16_supported(including_emulation=False),
                )
            )
    return found


def driver() -> str | None:
    """The NVIDIA driver's version, None where there is none."""
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        if not told.returncode and told.stdout.strip():
            return told.stdout.splitlines()[0].strip()
    return DRIVER.read_text().splitlines()[0] if DRIVER.exists() else None


def cuda(found: list[Device], driver: str | None, build: str | None = torch.version.cuda) -> Finding:
    """The devices that torch sees, with the driver that is there."""
    if not found:
        if driver is None:
            return ok("no GPU: CPU only", devices=[])
        reason = f"torch is built for CUDA {build}" if build else "torch is built without CUDA"
        return fail(
            f"driver {driver}, but torch sees no GPU ({reason})",
            "see whether nvidia-smi lists it and "
            "CUDA_VISIBLE_DEVICES is right; install the torch build that fits the driver",
        )
    names = "; ".join(
        f"{gpu.name}, {gpu.free:.1f} of {gpu.total:.1f} GB free, bf16 {'yes' if gpu.bf16 else 'no'}" for gpu in found
    )
    text = f"{len(found)} GPU{'s' if len(found) > 1 else ''}: {names}; driver {driver or 'unknown'}, CUDA {build}"
    facts = {"devices": [asdict(gpu) for gpu in found], "driver": driver}
    if not all(gpu.bf16 for gpu in found):
        return warn(text, "set runtime.precision=fp16 or fp32", **facts)
    if any(gpu.free < OCCUPIED * gpu.total for gpu in found):
        return warn(text, "another program holds memory of a GPU (nvidia-smi names it)", **facts)
    return ok(text, **facts)


def triton(has_gpu: bool, limit: float = KERNEL_SECONDS) -> Finding:
    """Compiles and runs this library's kernels on the GPU, in a process of its own, against the plain equations."""
    if not has_gpu:
        return ok("not needed without a GPU")
    program = "from lookupvivit.cli.doctor.gpu import try_kernels; try_kernels()"
    done = programs.run(["-c", program], limit)
    if done.status != 0:
        return fail(
            f"the kernels' trial {done.ending} ({done.reason})",
            "LOOKUPVIVIT_KERNELS=reference goes without "
            "them; compiling needs a C compiler and Python.h (gcc, python3-dev)",
        )
    apart = done.answer["apart"]
    if apart > 1e-3:
        return fail(
            f"the kernels are {apart:.2g} off the reference",
            "LOOKUPVIVIT_KERNELS=reference goes without them",
            **done.answer,
        )
    return ok(
        f"{done.answer['version']}: the kernels compile and agree with the reference to {apart:.1g} "
        f"({done.seconds:.0f} s)",
        **done.answer,
    )


def try_kernels() -> None:
    """The child of `triton`: prints JSON."""
    import triton

    from lookupvivit import kernels

    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, tokens, 64, device="cuda") for tokens in (32, 256, 256))
    outputs = []
    for name in ("triton", "reference"):
        with kernels.use(name):
            gathered, weights = kernels.gather(q, k, v)
            outputs.append((gathered, kernels.infuse(weights, gathered)))
    # TF32 may be in use: relative to the largest value
    apart = max(float((one - other).abs().max() / other.abs().max()) for one, other in zip(*outputs, strict=True))
    print(json.dumps({"version": triton.__version__, "apart": apart}))
