"""Argument types, and options that all tools spell the same. Parsing needs no torch.

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
add_run_option(parser)
add_batch_size_option(parser, default=8, unit="clips")
arguments = parser.parse_args()
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.io.errors import first_line
from data_pipelines.io.output_paths import OutputPathError, require_output_file, require_output_folder
from lookupvivit.sizes import Size, TokenSetting, parse_size, parse_token_setting
from lookupvivit.weights.shipped import SHIPPED_MODELS

if TYPE_CHECKING:
    import torch

BEST_DEVICE = "cuda if available"


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


def token_setting(text: str) -> TokenSetting:
    """A compressed size, a share of lookup tokens to keep, or both: TxHxW, @KEEP or TxHxW@KEEP."""
    try:
        return parse_token_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def token_sizes(text: str) -> tuple[Size, ...]:
    """Sizes such as 4x2x2,4x3x3, without duplicates."""
    return tuple(dict.fromkeys(token_size(part) for part in text.split(",") if part))


def view_counts(text: str) -> tuple[int, int]:
    """The views of a multi-view test, CLIPSxCROPS."""
    clips, _, crops = text.partition("x")
    if not clips.isdecimal() or int(clips) < 1 or crops not in ("1", "3"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected CLIPSxCROPS with 1 or 3 crops, such as 4x3 or 1x1")
    return int(clips), int(crops)


def non_negative_int(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 0")
    return int(text)


def positive_seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a positive number of seconds")
    return number


def device(text: str) -> torch.device:
    """A device on which a tensor can be created; "cuda" is the GPU of this rank if a launcher has started several."""
    import torch

    if text == BEST_DEVICE:
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text == "cuda":
        text += f":{os.environ.get('LOCAL_RANK', 0)}"
    try:
        return torch.zeros(1, device=text).device
    except (RuntimeError, AssertionError) as error:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        count = torch.accelerator.device_count() if accelerator else 0
        available = ["cpu", *(f"{accelerator.type}:{index}" for index in range(count) if accelerator)]
        message = f"found {text!r}, expected an available device: {', '.join(available)} ({first_line(error)})"
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


def add_run_option(parser: argparse.ArgumentParser, required: bool = True, default: str | None = None) -> None:
    """Add ``--run RUN``, a Path; ``--model`` is a hidden alias. If ``default`` describes None, it is not required."""
    help = f"a run directory, a checkpoint, a model.safetensors file or a shipped model: {', '.join(SHIPPED_MODELS)}"
    help += f" (default: {default})" if default else ""
    required = required and default is None
    _add_option(parser, "--run", alias="--model", required=required, type=Path, metavar="RUN", help=help)


def add_compressed_size_option(parser: argparse.ArgumentParser, default: str = "the model's own") -> None:
    """Add ``--compressed-size TxHxW``, a Size or None; ``default`` describes None in the help."""
    help = f"number of compressed tokens along time, height and width, such as 4x5x5 (default: {default})"
    parser.add_argument("--compressed-size", type=token_size, metavar="TxHxW", help=help)


def add_tokens_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--compressed-size TxHxW[@KEEP]``, a TokenSetting named ``tokens``."""
    help = (
        "number of compressed tokens along time, height and width, share of lookup tokens to keep, or both, such as "
        "4x5x5, @0.5 or 4x5x5@0.5 (default: the model's own size, all lookup tokens)"
    )
    settings: dict[str, Any] = {"type": token_setting, "default": TokenSetting(), "metavar": "TxHxW[@KEEP]"}
    parser.add_argument("--compressed-size", dest="tokens", help=help, **settings)


def add_device_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``--device DEVICE``, a torch.device; by default the GPU if there is one."""
    default = default or BEST_DEVICE
    help = f"cpu, cuda, cuda:1, ... (default: {default})"
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
