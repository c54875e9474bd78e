"""Check DeepSpeed, and the communication of two ranks that are started as in training."""

from __future__ import annotations

import json
import time

import torch

from data_pipelines.io.processes import python_command
from lookupvivit.cli.doctor import programs
from lookupvivit.cli.doctor.report import Finding, fail, ok
from lookupvivit.training import distributed

IMPORT_SECONDS, RANKS_SECONDS = 90.0, 90.0  # time limits
NUM_VALUES = 4 * 2**20  # float32 values in the all-reduce


def check_deepspeed(limit: float = IMPORT_SECONDS) -> Finding:
    """Import DeepSpeed in a child process."""
    code = "from lookupvivit.cli.doctor.communication import import_deepspeed; import_deepspeed()"
    outcome = programs.run(code, limit)
    if outcome.status is None:
        return fail(f"importing it {outcome.ending}", "try again when the machine and its disk are less busy")
    if outcome.status != 0:
        return fail(f"importing it {outcome.ending} ({outcome.reason})", "pip install -U 'deepspeed>=0.19'")
    facts = outcome.answer
    return ok(f"{facts['version']}, imported in {facts['import_seconds']:.1f} s", **facts)


def import_deepspeed() -> None:
    """The child process of `check_deepspeed`: prints JSON."""
    start = time.perf_counter()
    import deepspeed

    print(json.dumps({"version": deepspeed.__version__, "import_seconds": time.perf_counter() - start}))


def check_ranks(gpus: int, limit: float = RANKS_SECONDS) -> Finding:
    """Start two ranks (one on a single GPU) as training does, and sum a tensor through DeepSpeed."""
    size = min(gpus, 2) or 2
    ranks = f"{size} rank{'s' if size > 1 else ''} over {'nccl' if gpus else 'gloo'}"
    launcher = "from torch.distributed.run import main; main()"
    code = "from lookupvivit.cli.doctor.communication import sum_over_ranks; sum_over_ranks()"
    options = ["--standalone", "--nproc_per_node", str(size), "--no-python"]
    outcome = programs.run(launcher, limit, *options, *python_command(code))
    advice = _advice(gpus)
    if outcome.status is None:
        return fail(f"{ranks}: no answer within {limit:.0f} s", advice)
    if outcome.status != 0:
        return fail(f"{ranks}: {outcome.ending} ({outcome.reason})", advice)
    facts = outcome.answer
    if not facts["correct"]:
        return fail(f"{ranks}: the all-reduce returned a wrong sum", advice, **facts)
    speed = f"{facts['mb_per_second']:.0f} MB/s"
    return ok(f"{ranks}: all-reduce correct, {speed} ({outcome.seconds:.0f} s including the start)", **facts)


def _advice(gpus: int) -> str:
    advice = (
        "first fix failures above; check that this machine's host name resolves, or set "
        f"{'NCCL' if gpus else 'GLOO'}_SOCKET_IFNAME=lo to choose the network interface"
    )
    if gpus > 1:
        advice += "; NCCL_DEBUG=INFO prints details, NCCL_P2P_DISABLE=1 avoids direct copies between GPUs"
    return advice


def sum_over_ranks() -> None:
    """One rank of `check_ranks`; the first prints JSON."""
    world = distributed.start(threads=1)
    from deepspeed import comm

    values = torch.full((NUM_VALUES,), float(world.rank + 1), device=world.device)
    comm.all_reduce(values)
    is_correct = bool((values == sum(range(1, world.size + 1))).all())
    start = time.perf_counter()
    comm.all_reduce(values)
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    mb_per_second = 4 * NUM_VALUES / 1e6 / (time.perf_counter() - start)
    any_wrong = world.any(not is_correct)
    if world.is_main:
        facts = {"correct": not any_wrong, "mb_per_second": round(mb_per_second, 1), "ranks": world.size}
        print(json.dumps(facts), flush=True)
    distributed.stop()
