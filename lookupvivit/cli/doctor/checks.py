"""All checks of a machine, in the order in which they run and are printed."""

from __future__ import annotations

import shutil
from functools import cache, partial
from pathlib import Path

from data_pipelines.io.cores import usable_cores
from lookupvivit.cli.doctor import communication, gpu, loading, machine, storage, video
from lookupvivit.cli.doctor.report import Check, Finding, ok
from lookupvivit.config import RunConfig


def all_checks(scratch: Path, output: Path, data: Path | None, config: RunConfig | None) -> list[Check]:
    """List the checks.

    Args:
        scratch: an empty folder for files that checks write.
        output: the folder in which runs will be written.
        data: the folder of the videos; None skips the check of its disk.
        config: of a run, whose loading is measured; None skips this check.
    """
    gpus = _Gpus()
    videos = video.VideoChecks(scratch)
    checks = [
        Check("Python", machine.check_python),
        Check("torch", machine.check_torch),
        Check("CUDA", lambda: gpu.check_cuda(gpus.find(), gpu.driver_version())),
        Check("Triton", lambda: gpu.check_kernels(gpus.count() > 0)),
        Check("C++ compiler", machine.check_compiler),
        Check("DeepSpeed", communication.check_deepspeed),
        Check("ranks", lambda: communication.check_ranks(gpus.count())),
        Check("CPU cores", lambda: machine.check_cores(usable_cores(), gpus.ranks())),
        Check("memory", lambda: machine.check_memory(*machine.memory_sizes(), gpus.ranks())),
        Check("shared memory", lambda: _check_shared_memory(gpus.ranks())),
        *(Check(f"video: {name}", partial(videos.check, name)) for name in video.BACKENDS),
        Check("output disk", partial(storage.check_output_disk, output)),
    ]
    if data is not None:
        checks.append(Check("data disk", partial(storage.check_data_disk, data)))
    if config is not None:
        checks.append(Check("loading", lambda: loading.check_loading(config, usable_cores(), gpus.ranks())))
    return checks


class _Gpus:
    """The GPUs, looked up once. The CUDA check reports an error of the lookup; later checks then assume no GPU."""

    def __init__(self) -> None:
        self.find = cache(gpu.find_gpus)

    def count(self) -> int:
        try:
            return len(self.find())
        except Exception:
            return 0

    def ranks(self) -> int:
        """The ranks of a run on this machine: one per GPU, or one on a CPU."""
        return max(1, self.count())


def _check_shared_memory(ranks: int) -> Finding:
    folder = storage.SHARED_MEMORY
    if not folder.is_dir():
        return ok(f"this system has no {folder}; PyTorch shares files instead")
    usage = shutil.disk_usage(folder)
    return storage.check_shared_memory(folder, usage.total, usage.free, ranks)
