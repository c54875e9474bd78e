"""Programs that take a configuration."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping

from data_pipelines.io.output_paths import OutputPathError, require_output_folder
from lookupvivit.cli.arguments import positive_int
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.config.loading import load_config, to_yaml
from lookupvivit.training.failure_watch import end_process


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
    parser.add_argument("--cfg", required=True, metavar="FILE", help="a YAML file, or a name such as k400_9x9x8")
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
