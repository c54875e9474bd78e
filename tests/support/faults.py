"""Run a tool with a fault in it: ``python faults.py FAULT tools/train_net.py ARGUMENT...``.

With several ranks, only the last one has the fault; the others wait for it.
"""

from __future__ import annotations

import os
import resource
import runpy
import signal
import sys
import time
from pathlib import Path


def out_of_memory() -> None:
    """A step needs more memory than the device has."""
    import torch

    from lookupvivit.training.trainer import Trainer

    def fail(self, losses):
        raise torch.OutOfMemoryError("CUDA out of memory")

    Trainer.optimizer_step = fail


def killed_worker() -> None:
    """The kernel kills one of the loader workers, which uses too much memory."""
    from torch.utils.data import get_worker_info

    from data_pipelines.datasets.clips import ClipDataset

    read = ClipDataset.__getitem__

    def kill_first(self, key):
        if get_worker_info().id == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, key)

    ClipDataset.__getitem__ = kill_first


def small_shared_memory() -> None:
    """/dev/shm cannot hold a batch: a limit on file sizes makes the same calls fail. Needs data.decode_seconds=0."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def small_shared_memory_for_labels() -> None:
    """/dev/shm holds the videos of a batch, but not its labels as well."""
    import torch

    def fail(self, *arguments):
        raise RuntimeError("unable to allocate shared memory(shm)")

    torch.UntypedStorage._share_fd_cpu_ = fail


def decoder_error() -> None:
    """A decoder raises an exception that nobody expects."""
    from data_pipelines.video.reader import VideoReader

    def fail(self, indices):
        raise IndexError("list index out of range")

    VideoReader.read = fail


def stopped_in_validation() -> None:
    """A scheduler sends SIGTERM during every validation."""
    from lookupvivit.training.classification import Classification

    validate = Classification.validate

    def stop(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, *arguments)

    Classification.validate = stop


def slow_close() -> None:
    """After the training loop, something takes long. The moment shows in a file."""
    from lookupvivit.training.trainer import Trainer

    def wait(self):
        (self.run_dir / "closing").touch()
        time.sleep(600)

    Trainer.close = wait


def slow_steps() -> None:
    """Every step takes long enough for a test to act before the next one."""
    from lookupvivit.training.trainer import Trainer

    step = Trainer.optimizer_step

    def step_and_wait(self, losses):
        step(self, losses)
        time.sleep(0.5)

    Trainer.optimizer_step = step_and_wait


def slow_saving() -> None:
    """A checkpoint is complete for a while before it has its name."""
    from lookupvivit.training import checkpointing

    move = checkpointing.move_folder

    def wait_and_move(source, target):
        time.sleep(2)
        move(source, target)

    checkpointing.move_folder = wait_and_move


def slow_test() -> None:
    """A test takes long after it has saved the first results."""
    from lookupvivit.evaluation.resume import PartialResult

    flush = PartialResult.flush

    def flush_and_wait(self):
        flush(self)
        time.sleep(2)

    PartialResult.flush = flush_and_wait


def other_owner() -> None:
    """The run directory belongs to another user. Unpickling is printed."""
    import torch

    from lookupvivit.training import ownership

    load = torch.load
    torch.load = lambda *arguments, **options: print("UNPICKLED") or load(*arguments, **options)
    ownership.own_users = lambda folder: {folder.stat().st_uid + 1}


if __name__ == "__main__":
    # The deepspeed launcher inserts --local_rank.
    fault, *sys.argv = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    if int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1:
        globals()[fault]()
    runpy.run_path(sys.argv[0], run_name="__main__")
