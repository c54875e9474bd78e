"""DeepSpeed, the op that it compiles, and two ranks that talk to each other as in training."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from lookupvivit.engine import distributed
from lookupvivit.engine.doctor import programs
from lookupvivit.engine.doctor.report import Finding, fail, ok, warn

BUILD_SECONDS, RANKS_SECONDS = 300.0, 90.0
OP = "deepspeed_shm_comm"
NUMBERS = 4 * 2**20  # float32 that the ranks sum up
COMPILED = 5.0  # seconds from which the op was not there yet


def deepspeed(limit: float = BUILD_SECONDS) -> Finding:
    """Imports DeepSpeed and, without a GPU, builds or loads its communication op, in a process of its own."""
    trial = "from lookupvivit.engine.doctor.communication import try_deepspeed; try_deepspeed()"
    done = programs.run(["-c", trial], limit)
    told = done.answer
    if done.status is None and Path(told.get("lock", "")).is_file():
        return fail(f"its op was not there within {limit:.0f} s", "another process compiles it, or one was killed that "
                    f"did and left a lock: if nothing compiles, rm {told['lock']}")  # fmt: skip
    if done.status != 0:
        return fail(f"importing it and its op {done.ending} ({done.reason})", "see the C++ compiler's line; "
                    "pip install -U 'deepspeed>=0.19' ninja; rm -r ~/.cache/torch_extensions builds anew")  # fmt: skip
    found = f"{told['version']}, imported in {told['import_seconds']:.1f} s"
    if told["op_seconds"] is None:
        return ok(f"{found}; needs no op on a GPU", **told)
    if told["displaced"]:
        return warn(f"{found}; its CPU op in {told['folder']} was another environment's; compiled anew in "
                    f"{told['op_seconds']:.0f} s", "the two will go on displacing each other: give each a folder of "
                    "its own in TORCH_EXTENSIONS_DIR", **told)  # fmt: skip
    how = "compiled" if told["op_seconds"] > COMPILED else "compiled before, loaded"
    return ok(f"{found}; its CPU op {how} in {told['op_seconds']:.1f} s", **told)


def try_deepspeed() -> None:
    """The child of `deepspeed`: prints JSON, first what is known before the op."""
    distributed.find_compiler()
    start = time.perf_counter()
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    imported = time.perf_counter()
    told = {"version": deepspeed.__version__, "import_seconds": imported - start, "op_seconds": None}
    if get_accelerator().device_name() == "cpu":
        # torch holds a lock while it compiles; before torch 2.14 that of a killed process stops all others for ever
        folder = Path(_get_build_directory(OP, False))
        print(json.dumps({"lock": str(folder / "lock")}), flush=True)
        recipe = folder / "build.ninja"
        told["folder"] = str(folder)
        told["displaced"] = recipe.exists() and str(Path(deepspeed.__file__).parent) not in recipe.read_text()
        get_accelerator().create_op_builder("ShareMemCommBuilder").load()
        told["op_seconds"] = time.perf_counter() - imported
    print(json.dumps(told))


def ranks(gpus: int, limit: float = RANKS_SECONDS) -> Finding:
    """Two ranks (one, on a single GPU) start as training does and sum a tensor through DeepSpeed."""
    size = min(gpus, 2) or 2
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size), "--no-python"]
    trial = ["-c", "from lookupvivit.engine.doctor.communication import try_ranks; try_ranks()"]
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
    found = (f"{size} rank{'s' if size > 1 else ''} over {backend}: all-reduce right, {told['mb_per_second']:.0f} MB/s "
             f"({done.seconds:.0f} s with the start)")  # fmt: skip
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
