"""What the scripts in tools/ share: the arguments, and a user's mistake told in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from tqdm import tqdm

from data_pipelines.io.errors import DataError
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import load_config
from lookupvivit.evaluation.predictions import PredictionsError
from lookupvivit.kernels import KernelsError
from lookupvivit.training.signals import EXIT_STATUS, StoppedBySignal
from lookupvivit.weights.files import WeightsError


def run(
    program: Callable[[RunConfig], None],
    description: str,
    dry_run: Callable[[RunConfig, int | None], None] | None = None,
) -> None:
    """Parse ``--cfg FILE [key=value ...]`` and run ``program`` on the configuration.

    With ``dry_run``, ``--dry-run [--world N]`` runs that instead, on the configuration and N (None if not given).

    A wrong configuration, missing data or unfit weights end in one line on standard error and exit status 2.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="a YAML file, such as configs/camera_motion.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a setting, such as optim.lr=0.05")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # added by the deepspeed launcher
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="tell what would run and what it costs, and stop")
        parser.add_argument("--world", type=int, metavar="N", help="with --dry-run: ranks; default: GPUs here, or 1")
    arguments = parser.parse_intermixed_args()
    if dry_run and arguments.world is not None and not (arguments.dry_run and arguments.world >= 1):
        parser.error("--world: goes with --dry-run and is at least 1")
    with one_line_errors("the same command goes on from what was saved last"):
        config = load_config(arguments.cfg, arguments.overrides)
        if dry_run and arguments.dry_run:
            dry_run(config, arguments.world)
        else:
            program(config)


def give_up(error: Exception | str) -> NoReturn:
    """End a tool of a single process over a user's mistake: one line on standard error, exit status 2."""
    sys.stdout.flush()  # the line comes last, also where both go to one file
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def one_line_errors(after_interrupt: str) -> Iterator[None]:
    """End the process with one line on standard error where the user, the data or the machine is at fault.

    Args:
        after_interrupt: what to tell of going on after Ctrl-C.
    """
    try:
        yield
    except (ConfigError, DataError, WeightsError, PredictionsError, KernelsError, FloatingPointError, OSError) as error:
        # A loader's worker hands its error over as a traceback whose last line is the message. Every rank speaks:
        # a broken video is met by one of them alone.
        message = str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
        rank = f" (rank {os.environ['RANK']})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        _leave(f"error{rank}: {message}", 2)
    except StoppedBySignal as stopped:
        _leave(f"stopped by {stopped}; {after_interrupt}", EXIT_STATUS)
    except KeyboardInterrupt:
        _leave(f"interrupted; {after_interrupt}", 130)


def _leave(line: str, status: int) -> NoReturn:
    sys.stdout.flush()  # the line comes last, also where both go to one file
    tqdm.write(line, file=sys.stderr)  # above or below a bar, not in it
    sys.stderr.flush()
    os._exit(status)  # other ranks may sit in a collective that will never come


def whole_number(text: str) -> int:
    """An argument of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, must be a whole number of at least 1")
    return int(text)


def token_size(text: str) -> tuple[int, ...]:
    """An argument t,h,w."""
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"found {text!r}, must be three positive numbers t,h,w such as 4,5,5")
    return tuple(int(size) for size in sizes)


def device(text: str) -> torch.device:
    """An argument that names a device which is there."""
    try:
        return torch.zeros(1, device=text).device
    except (RuntimeError, AssertionError):
        found = torch.accelerator.current_accelerator(check_available=True)
        here = ["cpu", *(f"{found.type}:{i}" for i in range(torch.accelerator.device_count()) if found)]
        raise argparse.ArgumentTypeError(f"found {text!r}, must be one that is here: {', '.join(here)}") from None
