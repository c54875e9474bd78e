"""Ranks: one start for every launcher (`deepspeed`, `torchrun`), or plain `python` as a world of one."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from data_pipelines.io.atomic import free_space
from data_pipelines.io.errors import DataError
from data_pipelines.io.lock import locked
from lookupvivit.config import ConfigError
from lookupvivit.training.failure_watch import FailureWatch, end_process

RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SEEN_BY_ALL = ".seen_by_all_"  # start of the names of files that only test whether all ranks see them
VISIBILITY_SECONDS = 5.0  # a network file system may take this long to show a new file

_failure_watch: FailureWatch | None = None


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """The element-wise mean over all ranks, on every rank."""
        if self.size > 1:
            dist.all_reduce(values)
        return values / self.size

    def from_main(self, number: int) -> int:
        """Rank 0's ``number``, on every rank."""
        value = torch.tensor([number], device=self.device)
        if self.size > 1:
            dist.broadcast(value, src=0)
        return int(value)

    def text_from_main(self, text: str) -> str:
        """Rank 0's ``text``, on every rank."""
        texts: list[Any] = [text]
        if self.size > 1:
            dist.broadcast_object_list(texts, src=0)
        return texts[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank, on every rank."""
        return bool(self.mean(torch.tensor([float(flag)], device=self.device)) > 0)


def start(threads: int | None = None) -> World:
    """Join the process group that the launcher's environment describes, or create one of a single process.

    Args:
        threads: CPU threads of this rank; None keeps torch's choice.

    Raises:
        ConfigError: an incomplete environment, more ranks than GPUs, or ranks that cannot connect.
    """
    _complete_environment()
    if threads is not None:
        torch.set_num_threads(threads)
    use_gpu = torch.cuda.is_available()
    _import_deepspeed_quietly(use_gpu)
    import deepspeed

    local_rank = int(os.environ["LOCAL_RANK"])
    if use_gpu:
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"launcher: found local rank {local_rank}, but this machine has {torch.cuda.device_count()} GPUs; "
                "start one rank per GPU"
            )
        torch.cuda.set_device(local_rank)
    backend = "nccl" if use_gpu else "gloo"
    if int(os.environ["WORLD_SIZE"]) == 1:
        _join_alone(backend)
    try:
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
    except dist.DistNetworkError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"launcher: the ranks cannot connect at {address} ({error}). If another run uses this port, set another "
            "--master_port"
        ) from None
    device = torch.device("cuda", local_rank) if use_gpu else torch.device("cpu")
    world = World(dist.get_rank(), dist.get_world_size(), device)
    if world.size > 1:
        global _failure_watch
        _failure_watch = FailureWatch(dist.distributed_c10d._get_default_store(), world.rank)
    return world


def _join_alone(backend: str) -> None:
    """Create a process group of one rank that no other machine can reach: no store, and sockets on loopback only."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ |= {"GLOO_SOCKET_IFNAME": loopback[0], "NCCL_SOCKET_IFNAME": loopback[0]}
    if not dist.is_initialized():
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def _complete_environment() -> None:
    """Set the rendezvous variables of a single process if no launcher has set them."""
    present = [name for name in RENDEZVOUS if name in os.environ]
    if not present:
        os.environ.update(zip(RENDEZVOUS, ("0", "1", "0", "127.0.0.1", "0"), strict=True))
    elif len(present) < len(RENDEZVOUS):
        missing = sorted(set(RENDEZVOUS) - set(present))
        raise ConfigError(
            f"environment: {', '.join(present)} are set, but {', '.join(missing)} are not; start with deepspeed or "
            "torchrun, or unset all of them to run a single process"
        )


def _import_deepspeed_quietly(use_gpu: bool) -> None:
    """Import DeepSpeed without its messages, which would break the progress bar."""
    if not use_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise it warns that it had to find out
    for name in ("DeepSpeed", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import deepspeed  # not at the top: without the rendezvous variables it looks for mpi4py
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel(logging.ERROR)
    # Do not build shared-memory collectives, which DeepSpeed uses for inference on CPUs only. Compiling them takes a
    # minute and a C++ compiler, and a killed run would leave 69 MB per rank in /dev/shm.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def require_shared(folder: Path, world: World) -> None:
    """Check that every rank sees what rank 0 writes into ``folder``; collective.

    With a separate folder on each machine, checkpoints would be scattered, and the next start would find parts of them.

    Raises:
        ConfigError: a rank does not see it.
    """
    if world.size == 1:
        return
    mark = folder / f"{SEEN_BY_ALL}{world.from_main(secrets.randbits(48))}"  # a new name, which no file cache has
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    world.barrier()
    deadline = time.monotonic() + VISIBILITY_SECONDS
    while not (visible := mark.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    visible_to_all = not world.any(not visible)
    if world.is_main:
        mark.unlink()
    if not visible_to_all:
        who = "some rank" if visible else f"rank {world.rank} on {socket.gethostname()}"
        raise ConfigError(
            f"output_dir: {who} does not see what rank 0 writes into {folder.absolute()}; "
            "set a folder on a file system that all machines share under the same path"
        )


@contextmanager
def exclusive(file: Path, key: str, world: World) -> Iterator[None]:
    """Hold a lock on rank 0 during a ``with`` block; collective. See `data_pipelines.io.lock.locked`.

    Args:
        file: the lock file.
        key: of the configuration, for the error.

    Raises:
        ConfigError: on all ranks, if another process holds the lock or the file cannot be created.
    """
    with ExitStack() as stack:
        problem = ""
        if world.is_main:
            try:
                stack.enter_context(locked(file))
            except (DataError, OSError) as error:
                problem = f"{error}{free_space(error)}"
        if problem := world.text_from_main(problem):
            raise ConfigError(f"{key}: {problem}")
        yield


def stop() -> None:
    """Leave the process group."""
    if _failure_watch is not None:
        _failure_watch.stop()
    if dist.is_initialized():
        dist.destroy_process_group()


def fail(status: int) -> NoReturn:
    """End this process at once with an exit status, and the other ranks with it."""
    if _failure_watch is not None:
        _failure_watch.report()
    end_process(status)
