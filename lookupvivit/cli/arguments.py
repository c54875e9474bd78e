"""Command-line code that the tools share: argument types, options that are spelled the same everywhere, and errors.

A tool's ``main`` adds the common options that it needs to its parser and wraps its work in `one_line_errors`:

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser)
    add_batch_size_option(parser, default=8, unit="clips")
    arguments = parser.parse_args()
    with one_line_errors("results printed so far are valid"):
        ...

Exit status: 0, or 2 for an error that the user can correct, 1 for any other; 75 after a signal that asks to stop; 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from data_pipelines.io.errors import DataError
from data_pipelines.io.output_paths import OutputPathError, require_output_file, require_output_folder
from lookupvivit.cli.closed_output import exit_if_output_is_closed
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import load_config, to_yaml
from lookupvivit.evaluation.array_files import PredictionsError
from lookupvivit.kernels import KernelsError
from lookupvivit.sizes import Size, parse_size
from lookupvivit.training import distributed
from lookupvivit.training.failure_watch import end_process
from lookupvivit.training.signals import EXIT_STATUS, StoppedBySignal
from lookupvivit.weights.files import WeightsError

USER_ERRORS = (ConfigError, DataError, WeightsError, PredictionsError, KernelsError, FloatingPointError, OSError)


# Argument types: for `add_argument(type=...)`


def positive_int(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected an integer of at least 1")
    return int(text)


def token_size(text: str) -> Size:
    """A size in tokens, TxHxW."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def device(text: str) -> torch.device:
    """A device on which a tensor can be created."""
    try:
        return torch.zeros(1, device=text).device
    except (RuntimeError, AssertionError):
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        count = torch.accelerator.device_count() if accelerator else 0
        available = ["cpu", *(f"{accelerator.type}:{index}" for index in range(count) if accelerator)]
        message = f"found {text!r}, expected an available device: {', '.join(available)}"
        raise argparse.ArgumentTypeError(message) from None


def output_file(text: str) -> Path:
    """A file that can be written; checked before any work, so that no result is lost."""
    return _output_path(text, require_output_file)


def output_folder(text: str) -> Path:
    """A folder that can be written to, or created; checked before any work, so that no result is lost."""
    return _output_path(text, require_output_folder)


def _output_path(text: str, require: Callable[[str], None]) -> Path:
    try:
        require(text)
    except OutputPathError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


# Common options


# Names may contain characters that the terminal's encoding lacks. Standard error escapes them by default.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")


def add_run_option(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add ``--run RUN``, a Path; ``--model`` is a hidden alias."""
    help = "a run directory, a checkpoint or a model.safetensors file"
    _add_option(parser, "--run", alias="--model", required=required, type=Path, metavar="RUN", help=help)


def add_compressed_size_option(parser: argparse.ArgumentParser, default: str = "the model's own") -> None:
    """Add ``--compressed-size TxHxW``, a Size or None; ``default`` describes None in the help."""
    help = f"number of compressed tokens along time, height and width, such as 4x5x5 (default: {default})"
    parser.add_argument("--compressed-size", type=token_size, metavar="TxHxW", help=help)


def add_device_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``--device DEVICE``, a torch.device; by default the GPU if there is one."""
    help = f"cpu, cuda, cuda:1, ... (default: {default or 'cuda if available'})"
    default = default or ("cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--device", type=device, default=default, metavar="DEVICE", help=help)


def add_batch_size_option(parser: argparse.ArgumentParser, default: int | None, unit: str = "clips") -> None:
    """Add ``--batch-size N``; ``--batch`` is a hidden alias. With None as default, the tool decides."""
    help = f"{unit} per forward pass" + (f" (default: {default})" if default else "")
    _add_option(parser, "--batch-size", alias="--batch", default=default, type=positive_int, metavar="N", help=help)


def add_output_option(parser: argparse.ArgumentParser, contents: str, default: str | None = None) -> None:
    """Add ``--output FOLDER``, a Path or None; ``contents`` says in the help what is written there."""
    help = f"folder for {contents}" + (f" (default: {default})" if default else "")
    parser.add_argument("--output", type=output_folder, default=default, metavar="FOLDER", help=help)


def add_json_file_option(parser: argparse.ArgumentParser, contents: str = "the results") -> None:
    """Add ``--json FILE``, a Path or None, for tools that print text and can also write JSON."""
    parser.add_argument("--json", type=output_file, metavar="FILE", help=f"also write {contents} to this file as JSON")


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` for tools that print either text or one JSON document."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def _add_option(
    parser: argparse.ArgumentParser,
    name: str,
    *,
    alias: str,
    required: bool = False,
    default: Any = None,
    **settings: Any,
) -> None:
    """Add an option and an alias that the help does not show."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(name, default=default, **settings)
    settings["help"] = argparse.SUPPRESS
    group.add_argument(alias, dest=name.strip("-").replace("-", "_"), default=argparse.SUPPRESS, **settings)


# Programs that take a configuration


def run_with_config(
    program: Callable[..., None],
    description: str,
    dry_run: Callable[[RunConfig, int | None], None] | None = None,
    flags: Mapping[str, str] | None = None,
) -> None:
    """Parse ``--cfg FILE [key=value ...]`` and run ``program`` on the configuration.

    Args:
        program: the function to run on the configuration.
        description: the first line of its help.
        dry_run: what ``--dry-run [--world N] [--print-config]`` runs instead; its second argument is N or None.
            Without it, there are no such options.
        flags: further options without a value, and their help; keyword arguments of ``program``.
    """
    flags = flags or {}
    arguments = _parse_config_arguments(description, dry_run is not None, flags)
    with one_line_errors("the same command continues from the last checkpoint"):
        config = load_config(arguments.cfg, arguments.overrides)
        if dry_run and arguments.dry_run:
            if arguments.print_config:
                print(to_yaml(config))
            dry_run(config, arguments.world)
        else:
            require_output_dir(config.output_dir)
            program(config, **{name: getattr(arguments, name) for name in flags})
            _end_distributed_program()


def _parse_config_arguments(description: str, has_dry_run: bool, flags: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="a YAML file, such as configs/camera_motion.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="set a key, such as optim.lr=0.05")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # added by the deepspeed launcher
    for name, help in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=help)
    if not has_dry_run:
        return parser.parse_intermixed_args()
    parser.add_argument("--dry-run", action="store_true", help="print what would run and its cost, then stop")
    help = "with --dry-run: the number of ranks (default: the GPUs of this machine, or 1)"
    parser.add_argument("--world", type=positive_int, metavar="N", help=help)
    help = "with --dry-run: also print the complete configuration"
    parser.add_argument("--print-config", action="store_true", help=help)
    arguments = parser.parse_intermixed_args()
    for option, is_given in (("--world", arguments.world), ("--print-config", arguments.print_config)):
        if is_given and not arguments.dry_run:
            parser.error(f"argument {option}: expected --dry-run as well")
    return arguments


def require_output_dir(folder: str) -> None:
    """Check, before the data is read, that ``output_dir`` can be written to; raises ConfigError."""
    try:
        require_output_folder(folder)
    except OutputPathError as error:
        raise ConfigError(f"output_dir: {error}") from None


def _end_distributed_program() -> None:
    """End a process of several ranks without finalising the interpreter, see `end_process`."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        end_process(0)


# Errors


def exit_with_error(error: Exception | str) -> NoReturn:
    """End a single-process tool with one line on standard error and exit status 2."""
    if isinstance(error, BrokenPipeError):
        exit_if_output_is_closed()
    sys.stdout.flush()  # the error comes last, also where both streams go to one file
    print(f"error: {error}", file=sys.stderr)
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
        # Errors of loader workers arrive with the worker's traceback as text; the message is its last line.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        message = lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
        rank = f" (rank {os.environ['RANK']})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        _print_last(f"error{rank}: {message}")
        distributed.fail(2)
    except StoppedBySignal as signal:
        _print_last(f"stopped by {signal}; {after_interrupt}")
        end_process(EXIT_STATUS)  # all ranks do
    except KeyboardInterrupt:
        _print_last(f"interrupted; {after_interrupt}")
        distributed.fail(130)
    except Exception:
        _print_last(traceback.format_exc().rstrip())
        distributed.fail(1)


def _print_last(text: str) -> None:
    """Print to standard error, after what was printed so far; does not overwrite a progress bar."""
    sys.stdout.flush()  # both streams may go to one file
    tqdm.write(text, file=sys.stderr)
