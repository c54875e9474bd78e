"""How tools end: one line for an error of the user, and an exit status.

    with one_line_errors("results printed so far are valid"):
        ...

Exit status: 0, or 2 for an error that the user can correct, 3 if a training diverged, 1 for any other error; 75 after a
signal that asks to stop; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from data_pipelines.io.atomic import free_space
from data_pipelines.io.errors import DataError
from data_pipelines.io.text import one_line
from lookupvivit.cli.closed_output import exit_if_output_is_closed
from lookupvivit.errors import UserError
from lookupvivit.training.failure_watch import DIVERGED_STATUS, end_process
from lookupvivit.training.signals import EXIT_STATUS, StoppedBySignal

USER_ERRORS = (UserError, DataError, FloatingPointError, OSError)


def exit_with_error(error: Exception | str) -> NoReturn:
    """End a single-process tool with one line on standard error and exit status 2."""
    if isinstance(error, BrokenPipeError):
        exit_if_output_is_closed()
    sys.stdout.flush()  # the error comes last, also where both streams go to one file
    print(f"error: {one_line(error)}{free_space(error)}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def one_line_errors(after_interrupt: str) -> Iterator[None]:
    """Turn errors of the user, the data or the machine into one line on standard error and an exit status.

    Any other exception ends the process with its traceback. In every case, the process ends at once: child processes,
    or other ranks in a collective, could block a clean exit.

    Every rank of a distributed program reports its own error, because a corrupt video is seen by one rank only.

    Args:
        after_interrupt: what the user should know after Ctrl-C or a signal, such as how to continue.
    """
    try:
        yield
    except USER_ERRORS as error:
        if isinstance(error, BrokenPipeError):
            exit_if_output_is_closed()
        message = str(error).strip() or type(error).__name__
        if message.startswith("Caught "):  # by a loader worker, whose traceback follows and ends with the message
            message = message.splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
        rank = f" (rank {os.environ['RANK']})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        _print_last(f"error{rank}: {one_line(message)}{free_space(error)}")
        _fail(DIVERGED_STATUS if isinstance(error, FloatingPointError) else 2)
    except StoppedBySignal as signal:
        _print_last(f"stopped by {signal}; {after_interrupt}")
        end_process(EXIT_STATUS)  # all ranks do
    except KeyboardInterrupt:
        _print_last(f"interrupted; {after_interrupt}")
        _fail(130)
    except Exception:
        _print_last(traceback.format_exc().rstrip())
        _fail(1)


def _print_last(text: str) -> None:
    """Print to standard error, after what was printed so far; does not overwrite a progress bar."""
    sys.stdout.flush()  # both streams may go to one file
    tqdm.write(text, file=sys.stderr)


def _fail(status: int) -> NoReturn:
    """End this process, and let other ranks know if there are any."""
    distributed = sys.modules.get("lookupvivit.training.distributed")  # Ctrl-C may have ended its import of torch
    if distributed is not None:
        distributed.fail(status)
    end_process(status)
