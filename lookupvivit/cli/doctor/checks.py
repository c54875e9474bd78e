"""All checks of a machine, in the order in which they are told."""

from __future__ import annotations

import shutil
from functools import cache, partial
from pathlib import Path

from lookupvivit.cli.doctor import communication, gpu, machine, storage, video
from lookupvivit.cli.doctor.report import Check, Finding, ok


def checks(scratch: Path, output: Path, data: Path | None) -> list[Check]:
    """Name and function of every check.

    Args:
        scratch: an empty folder for what the checks write.
        output: where runs are to be written.
        data: where the videos are; None leaves their disk out.
    """
    found_gpus = cache(gpu.devices)  # asked for by the check of CUDA first: what is raised there is told there

    def gpus() -> int:
        try:
            return len(found_gpus())
        except Exception:
            return 0

    def cores() -> Finding:
        return machine.cores(machine.usable_cores(), max(1, gpus()))

    def memory() -> Finding:
        return machine.memory(*machine.memory_sizes(), max(1, gpus()))

    def shared_memory() -> Finding:
        if not storage.SHARED.is_dir():
            return ok("this system has no /dev/shm; torch shares files")
        usage = shutil.disk_usage(storage.SHARED)
        return storage.shared_memory(storage.SHARED, usage.total, usage.free, max(1, gpus()))

    backends = video.VideoChecks(scratch)
    listed: list[Check] = [
        ("Python", machine.python),
        ("torch", machine.torch_version),
        ("CUDA", lambda: gpu.cuda(found_gpus(), gpu.driver())),
        ("Triton", lambda: gpu.triton(gpus() > 0)),
        ("C++ compiler", machine.compiler),
        ("DeepSpeed", communication.deepspeed),
        ("ranks", lambda: communication.ranks(gpus())),
        ("CPU cores", cores),
        ("memory", memory),
        ("shared memory", shared_memory),
        *((f"video: {name}", partial(backends.check, name)) for name in video.BACKENDS),
        ("output disk", partial(storage.output_disk, output)),
    ]
    return listed if data is None else [*listed, ("data disk", partial(storage.data_disk, data))]
