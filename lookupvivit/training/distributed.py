"""One start for every launcher: `deepspeed`, `torchrun`, or plain `python` as a world of one."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lookupvivit.config import ConfigError

RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 5.0  # seconds that a network file system may take to show a new file


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
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it had to find that out
    for name in ("DeepSpeed", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)  # their INFO and warnings would break the progress bar
    import deepspeed  # imported here: it looks for mpi4py unless the rendezvous variables are set
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel(logging.ERROR)
    # Collectives over shared memory, which its inference alone uses on CPUs. Compiling them takes a minute and a C++
    # compiler; they map 69 MB per rank that a killed run leaves behind for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    local_rank = int(os.environ["LOCAL_RANK"])
    if use_gpu:
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"launcher: started rank {local_rank} of this machine, which has "
                f"{torch.cuda.device_count()} GPUs; start as many ranks as there are GPUs"
            )
        torch.cuda.set_device(local_rank)
    try:
        deepspeed.init_distributed(dist_backend="nccl" if use_gpu else "gloo", verbose=False)
    except dist.DistNetworkError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"launcher: the ranks cannot meet at {place} ({error}); another run on this machine? Give the launcher "
            "another --master_port"
        ) from None
    device = torch.device("cuda", local_rank) if use_gpu else torch.device("cpu")
    return World(dist.get_rank(), dist.get_world_size(), device)


def require_shared(folder: Path, world: World) -> None:
    """Collective: ConfigError where a rank does not see what the main rank writes into ``folder``.

    On several machines with a folder each, checkpoints would be scattered and the next start would find parts of them.
    """
    if world.size == 1:
        return
    mark = folder / f".seen_by_all_{world.from_main(secrets.randbits(48))}"  # a name that no file cache knows
    if world.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    world.barrier()
    deadline = time.monotonic() + PATIENCE
    while not (seen := mark.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    everywhere = not world.any(not seen)
    if world.is_main:
        mark.unlink()
    if not everywhere:
        who = f"rank {world.rank} on {socket.gethostname()} does not see" if not seen else "not every rank sees"
        raise ConfigError(
            f"output_dir: {who} what rank 0 writes into {folder.absolute()}; it must be on a file system "
            "that all machines share, under the same path"
        )


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
