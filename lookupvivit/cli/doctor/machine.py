"""Versions, the C++ compiler, cores and memory."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

from lookupvivit.cli.doctor.report import Finding, fail, ok, warn
from lookupvivit.config import DataConfig

OLDEST_PYTHON, OLDEST_TORCH = (3, 10), (2, 11)
# what compiled blocks include besides the standard library; Python.h comes in a package of its own
SOURCE = "#include <Python.h>\n#include <omp.h>\n#include <atomic>\nint main() { return omp_get_max_threads() < 0; }\n"
WORKER_GB = 0.5  # of a loading process, see docs/DATA.md
LEAST_GB, COMFORTABLE_GB = 2, 8


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """The interpreter's version."""
    found = f"{'.'.join(map(str, version))} ({sys.executable})"
    if version[:2] < OLDEST_PYTHON:
        return fail(found, "3.10 or newer is needed; make PYTHON=python3.12 makes an environment of it")
    return ok(found, version=list(version))


def torch_version(version: str = torch.__version__) -> Finding:
    """torch's version, and what it was built for."""
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    found = f"{version}, built {build}"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TORCH:
        return fail(found, "2.11 or newer is needed; pip install -U torch torchvision")
    return ok(found, version=str(version), cuda=torch.version.cuda)


def compiler() -> Finding:
    """Whether a C++ program with OpenMP and Python's headers compiles."""
    need = "torch.compile needs one (runtime.compile=true), and nothing else"
    command = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if command is None:
        return warn("none (looked for $CXX, c++ and g++)", f"{need}; install g++ or build-essential")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "try.cpp")
        source.write_text(SOURCE)
        done = subprocess.run(
            [command, "-fopenmp", "-I", sysconfig.get_path("include"), "-o", str(Path(folder, "try")), str(source)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        return warn(
            f"{command} cannot compile ({said})",
            f"{need}; install g++ or build-essential, and for Python.h python3-dev (Debian, Ubuntu) or python3-devel",
        )
    version = subprocess.run([command, "-dumpfullversion"], capture_output=True, text=True, timeout=60).stdout.strip()
    return ok(f"{command} {version}".strip(), command=command)


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """CPU cores that this process may use: its affinity, and a container's quota."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, int(quota) / int(period))


def cores(available: float, ranks: int) -> Finding:
    """Cores against the loading processes of all ``ranks`` of a machine."""
    workers = DataConfig.default("workers")
    wanted = ranks * (workers + 1)
    found = f"{available:g} ({platform.machine()}) for {ranks} rank{'s' if ranks > 1 else ''}"
    facts = {"cores": available, "ranks": ranks, "workers": workers}
    if available < wanted:
        fitting = max(1, int(available / ranks) - 1)
        return warn(
            f"{found}; {workers} workers each, the default, want {wanted}", f"set data.workers={fitting}", **facts
        )
    return ok(f"{found} with {workers} workers each", **facts)


def memory(total_gb: float, available_gb: float, ranks: int) -> Finding:
    """Main memory against what the loading processes take."""
    found = f"{available_gb:.1f} of {total_gb:.1f} GB available"
    facts = {"total_gb": round(total_gb, 2), "available_gb": round(available_gb, 2)}
    workers = ranks * DataConfig.default("workers") * WORKER_GB
    if available_gb < LEAST_GB:
        return fail(found, "not enough to train even the demo: end other programs or take a larger machine", **facts)
    if available_gb < max(COMFORTABLE_GB, 2 * workers):
        return warn(
            f"{found}; the default workers alone take {workers:g}",
            "fewer data.workers, a smaller optim.micro_batch_size; --dry-run of tools/train_net.py estimates a run's",
            **facts,
        )
    return ok(found, **facts)


def memory_sizes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[float, float]:
    """(total, available) in GB, a container's limit included."""
    lines = (line.split() for line in meminfo.read_text().splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
    total, available = sizes["MemTotal"], sizes["MemAvailable"]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroups v2 and v1
        file = cgroup / name
        if file.is_file() and (text := file.read_text().strip()) != "max":
            total, available = min(total, int(text)), min(available, int(text))
    return total / 1e9, available / 1e9
