"""One start for every launcher: `deepspeed`, `torchrun`, or plain `python` as a world of one."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lookupvivit.config import ConfigError

RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process's place among all: ``rank`` of ``size``, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """Element-wise mean over the ranks, on every rank."""
        if self.size > 1:
            dist.all_reduce(values)
        return values / self.size

    def from_main(self, number: int) -> int:
        """The main rank's ``number``, on every rank."""
        value = torch.tensor([number], device=self.device)
        if self.size > 1:
            dist.broadcast(value, src=0)
        return int(value)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank, on every rank."""
        return bool(self.mean(torch.tensor([float(flag)], device=self.device)) > 0)


def start(threads: int | None = None) -> World:
    """Join the process group that the launcher describes in the environment, or make one of a single process."""
    present = [name for name in RENDEZVOUS if name in os.environ]
    if not present:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(zip(RENDEZVOUS, ("0", "1", "0", "127.0.0.1", str(port)), strict=True))
    elif len(present) < len(RENDEZVOUS):
        missing = sorted(set(RENDEZVOUS) - set(present))
        raise ConfigError(
            f"environment: {', '.join(present)} are set but {', '.join(missing)} are not; start with deepspeed or "
            "torchrun, or unset them all to run as a single process"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    use_gpu = torch.cuda.is_available()
    if not use_gpu:
        require_compiler()

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # its INFO lines would break the progress bar
    import deepspeed  # imported here: it looks for mpi4py unless the rendezvous variables are set
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel(logging.ERROR)
    local_rank = int(os.environ["LOCAL_RANK"])
    if use_gpu:
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(f"launcher: started rank {local_rank} of this machine, which has "
                              f"{torch.cuda.device_count()} GPUs; start as many ranks as there are GPUs")  # fmt: skip
        torch.cuda.set_device(local_rank)
    try:
        deepspeed.init_distributed(dist_backend="nccl" if use_gpu else "gloo", verbose=False)
    except dist.DistNetworkError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"launcher: the ranks cannot meet at {place} ({error}); another run on this machine? Give the launcher "
            "another --master_port"
        ) from None
    if not use_gpu:
        release_buffers()
    device = torch.device("cuda", local_rank) if use_gpu else torch.device("cpu")
    return World(dist.get_rank(), dist.get_world_size(), device)


def release_buffers() -> None:
    """DeepSpeed's CPU communication leaves 69 MB of shared memory per rank and run behind for ever.

    Once all ranks have mapped the buffers their names can go: the memory then ends with the processes, killed or not.
    """
    dist.barrier()
    place = f"{os.getuid()}_{os.environ['MASTER_ADDR']}_{os.environ['MASTER_PORT']}_{dist.get_rank()}"
    Path(f"/dev/shm/deepspeed_allreduce_buffer_{place}").unlink(missing_ok=True)


def find_compiler() -> str | None:
    """The C++ compiler that DeepSpeed would take, None if there is none."""
    # ninja comes with the environment, whose programs are on the PATH only where it was activated
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


def require_compiler() -> None:
    """DeepSpeed builds a small C++ op for CPU communication the first time; say so where it cannot."""
    if find_compiler() is None:
        raise ConfigError(
            "no C++ compiler found (looked for c++ and g++): without a GPU, DeepSpeed compiles a small communication "
            "op once; install one, for example the package g++ or build-essential"
        )


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
