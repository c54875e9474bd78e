"""DeepSpeed, and two ranks that talk to each other as in training."""

from __future__ import annotations

import json
import sys
import time

import torch

from lookupvivit.cli.doctor import programs
from lookupvivit.cli.doctor.report import Finding, fail, ok
from lookupvivit.training import distributed

IMPORT_SECONDS, RANKS_SECONDS = 90.0, 90.0
NUMBERS = 4 * 2**20  # float32 that the ranks sum up


def deepspeed(limit: float = IMPORT_SECONDS) -> Finding:
    """Imports DeepSpeed in a process of its own."""
    trial = "from lookupvivit.cli.doctor.communication import try_deepspeed; try_deepspeed()"
    done = programs.run(["-c", trial], limit)
    if done.status != 0:
        return fail(f"importing it {done.ending} ({done.reason})", "pip install -U 'deepspeed>=0.19'")
    told = done.answer
    return ok(f"{told['version']}, imported in {told['import_seconds']:.1f} s", **told)


def try_deepspeed() -> None:
    """The child of `deepspeed`: prints JSON."""
    start = time.perf_counter()
    import deepspeed

    print(json.dumps({"version": deepspeed.__version__, "import_seconds": time.perf_counter() - start}))


def ranks(gpus: int, limit: float = RANKS_SECONDS) -> Finding:
    """Two ranks (one, on a single GPU) start as training does and sum a tensor through DeepSpeed."""
    size = min(gpus, 2) or 2
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size), "--no-python"]
    trial = ["-c", "from lookupvivit.cli.doctor.communication import try_ranks; try_ranks()"]
    done = programs.run([*launcher, sys.executable, *trial], limit)
    backend, variables = ("nccl", "NCCL") if gpus else ("gloo", "GLOO")
    advice = "first see to the lines above; does this machine's name resolve? "
    advice += f"{variables}_SOCKET_IFNAME=lo names the interface"
    if gpus > 1:
        advice += "; NCCL_DEBUG=INFO tells more, NCCL_P2P_DISABLE=1 goes without direct copies between GPUs"
    if done.status is None:
        return fail(f"{size} ranks over {backend} gave no answer within {limit:.0f} s and were stopped", advice)
    if done.status != 0:
        return fail(f"{size} ranks over {backend}: it {done.ending} ({done.reason})", advice)
    told = done.answer
    found = (
        f"{size} rank{'s' if size > 1 else ''} over {backend}: all-reduce right, {told['mb_per_second']:.0f} MB/s "
        f"({done.seconds:.0f} s with the start)"
    )
    if not told["right"]:
        return fail(f"{size} ranks over {backend}: the all-reduce's sum is wrong", advice, **told)
    return ok(found, **told)


def try_ranks() -> None:
    """A rank of `ranks`; the first prints JSON."""
    world = distributed.start(threads=1)
    from deepspeed import comm

    values = torch.full((NUMBERS,), float(world.rank + 1), device=world.device)
    comm.all_reduce(values)
    right = bool((values == sum(range(1, world.size + 1))).all())
    start = time.perf_counter()
    comm.all_reduce(values)
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    speed = 4 * NUMBERS / 1e6 / (time.perf_counter() - start)
    all_right = not world.any(not right)
    if world.is_main:
        print(json.dumps({"right": all_right, "mb_per_second": round(speed, 1), "ranks": world.size}), flush=True)
    distributed.stop()
