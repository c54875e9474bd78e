"""Measure memory: the peak of a benchmark case in its own process, and the bytes that autograd saves.

`measure_memory` starts a process with a case and settings as JSON, which prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_pipelines.io.processes import python_command
from lookupvivit.profiling.benchmark_cases import Case, CaseRunner, Setting, meta_model
from lookupvivit.sizes import as_keep, as_size

PROC_STATUS = Path("/proc/self/status")
# malloc returns tensors of 64 KiB and more to the system when they are freed; otherwise its fragmentation would be
# measured.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
EXIT_INVALID_CASE = 2


class MemoryMeasurementError(RuntimeError):
    """The process that measured memory failed; the message contains its last line."""


@dataclass(frozen=True)
class MeasuredMemory:
    """Bytes.

    Attributes:
        peak: on a CPU, resident memory above that after the imports; on a GPU, allocated tensors. Includes weights and,
            in training, gradients and momentum.
        kept: storages saved for the backward pass, without weights and input; None without training.
    """

    peak: int
    kept: int | None


def measure_memory(case: Case, setting: Setting, train: bool) -> MeasuredMemory:
    """Measure two forward passes of a case, or two training steps, in a new process.

    Raises:
        MemoryMeasurementError: the process failed, for instance because memory ran out.
    """
    if setting.torch_device.type != "cuda" and not PROC_STATUS.exists():
        raise MemoryMeasurementError(f"memory of a CPU is read from {PROC_STATUS}, which only Linux has; skip it")
    request = json.dumps({"case": asdict(case), "setting": asdict(setting), "train": train})
    process = subprocess.run(
        python_command(f"from {__name__} import main; main()", request),
        env={**os.environ, **MALLOC},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {process.returncode} (killed for memory?)"
        prefix = "" if process.returncode == EXIT_INVALID_CASE else "measuring memory failed: "
        raise MemoryMeasurementError(f"{case.label}: {prefix}{reason}")
    return MeasuredMemory(**json.loads(process.stdout.splitlines()[-1]))


def saved_bytes(compute: Callable[[], Any], ignored: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd saves for the backward pass of ``compute()``; every storage counts once and in full.

    Counts tensors that operators save through autograd (`torch.autograd.graph.saved_tensors_hooks`).

    Args:
        compute: a function whose result is discarded.
        ignored: tensors whose storages do not count, such as the parameters.
    """
    ignored_storages = {tensor.untyped_storage().data_ptr() for tensor in ignored}
    alive: list[Tensor] = []
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)  # a freed storage's address could be reused
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    del result
    return sum(size for address, size in sizes.items() if address not in ignored_storages)


def _measure(case: Case, setting: Setting, train: bool) -> MeasuredMemory:
    """Measure in this process; two steps, because the first one creates the momentum."""
    setting.apply()
    device = setting.torch_device
    meta_model(case)  # imports what the case needs before memory is first read
    before = 0 if device.type == "cuda" else _resident_bytes("VmRSS")
    runner = CaseRunner(case, setting)
    runner.model.train(train)
    for _ in range(2):
        if train:
            runner.train_step()
        else:
            with torch.no_grad():
                runner.forward()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident_bytes("VmHWM") - before
    if not train:
        return MeasuredMemory(peak, None)
    ignored = (*runner.model.parameters(), *runner.model.buffers(), runner.video)
    return MeasuredMemory(peak, saved_bytes(runner.loss, ignored))


def _resident_bytes(key: str) -> int:
    """VmRSS (now) or VmHWM (peak). The peak of getrusage would include that of the parent process."""
    [line] = [line for line in PROC_STATUS.read_text().splitlines() if line.startswith(key)]
    return 1024 * int(line.split()[1])


def _case_from_json(fields: dict[str, Any]) -> Case:
    size, like, keep = fields["size"], fields["like"], fields["keep"]
    return Case(
        name=fields["name"],
        size=None if size is None else as_size(size),
        kernels=fields["kernels"],
        like=None if like is None else _case_from_json(like),
        keep=None if keep is None else as_keep(keep),
    )


def main() -> None:
    """The new process of `measure_memory`."""
    request = json.loads(sys.argv[1])
    try:
        case, setting = _case_from_json(request["case"]), Setting(**request["setting"])
        print(json.dumps(asdict(_measure(case, setting, request["train"]))))
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_INVALID_CASE)
