"""Memory that a model takes: its peak, in a process of its own, and what autograd keeps for the backward pass.

Run as a module by `footprint`, with a case and a setting as JSON; prints JSON.
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

from lookupvivit.profiling.benchmark_cases import Case, Setting, Subject, without_data

STATUS = Path("/proc/self/status")
# Tensors of 64 KiB and more go back to the system when they are freed; else malloc's own losses would be measured.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}


USAGE = 2  # exit status where the case itself cannot be


class FootprintError(RuntimeError):
    """The process that measured memory did not come to its end; the message has its last line."""


@dataclass(frozen=True)
class Footprint:
    """Bytes.

    Attributes:
        peak: on a CPU, of resident memory above what the imports take; on a GPU, of allocated tensors. Weights, and in
            training gradients and momentum, are among it.
        kept: storages kept for the backward pass, weights and input left out; None without training.
    """

    peak: int
    kept: int | None


def footprint(case: Case, setting: Setting, train: bool) -> Footprint:
    """Measure two passes of a case, or two training steps, in a fresh process.

    Raises:
        FootprintError: it failed, for instance for want of memory.
    """
    if setting.torch_device.type != "cuda" and not STATUS.exists():
        raise FootprintError(f"memory is measured from {STATUS}, which only Linux has: leave it out (--no-memory)")
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    request = json.dumps({"case": asdict(case), "setting": asdict(setting), "train": train})
    done = subprocess.run(
        [sys.executable, "-m", "lookupvivit.profiling.measured_memory", request],
        env={**os.environ, **MALLOC, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        why = said[-1] if said else f"exit status {done.returncode} (killed for memory?)"
        what = "" if done.returncode == USAGE else "its memory could not be measured: "
        raise FootprintError(f"{case.label}: {what}{why}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def kept_bytes(compute: Callable[[], Any], without: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps for the backward pass of ``compute()``, each storage once and as a whole.

    Seen are tensors that operators save by autograd's own means (`torch.autograd.graph.saved_tensors_hooks`).

    Args:
        without: tensors whose storages are not counted, such as the parameters, which are there anyway.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in without}
    alive, storages = [], {}

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)  # or the place of one that is freed could be another's
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    del result
    return sum(size for place, size in storages.items() if place not in own)


def _measure(case: Case, setting: Setting, train: bool) -> Footprint:
    """Of this process; a second step, because momentum comes with the first."""
    setting.apply()
    device = setting.torch_device
    without_data(case)  # what has to be imported for it is not its memory
    before = 0 if device.type == "cuda" else _resident("VmRSS")
    subject = Subject(case, setting)
    subject.model.train(train)
    for _ in range(2):
        if train:
            subject.train_step()
        else:
            with torch.no_grad():
                subject.forward()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM") - before
    if not train:
        return Footprint(peak, None)
    own = (*subject.model.parameters(), *subject.model.buffers(), subject.video)
    return Footprint(peak, kept_bytes(subject.loss, own))


def _resident(key: str) -> int:
    """Bytes; not from getrusage, whose peak begins with that of the process that started this one."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(key)]
    return 1024 * int(line.split()[1])


def _case(told: dict[str, Any] | None) -> Case | None:
    if told is None:
        return None
    return Case(told["name"], told["size"] and tuple(told["size"]), told["kernels"], _case(told["like"]))


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    try:
        print(json.dumps(asdict(_measure(_case(told["case"]), Setting(**told["setting"]), told["train"]))))
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(USAGE)
