"""Command-line arguments: common options, and how a tool ends after an error that is not its own."""

import argparse
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lookupvivit.cli import arguments
from lookupvivit.cli.errors import exit_with_error


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    """A parser with all common options."""
    parser = argparse.ArgumentParser()
    arguments.add_run_option(parser)
    arguments.add_compressed_size_option(parser)
    arguments.add_device_option(parser, "cpu")
    arguments.add_batch_size_option(parser, default=8)
    return parser


def test_common_options(parser):
    line = ["--run", "runs/a", "--compressed-size", "4x5x6", "--device", "cpu", "--batch-size", "2"]
    parsed = parser.parse_args(line)
    assert (parsed.run, parsed.compressed_size, parsed.batch_size) == (Path("runs/a"), (4, 5, 6), 2)
    assert parsed.device == torch.device("cpu")
    assert vars(parser.parse_args(["--run", "a"])) == {
        "run": Path("a"),
        "compressed_size": None,
        "device": torch.device("cpu"),
        "batch_size": 8,
    }


def test_aliases_work_and_are_hidden(parser):
    assert vars(parser.parse_args(["--model", "a", "--batch", "3"])) == vars(
        parser.parse_args(["--run", "a", "--batch-size", "3"])
    )
    assert "--model" not in parser.format_help() and "--batch " not in parser.format_help()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], ("--run",)),
        (["--run", "a", "--compressed-size", "4,5,5"], ("--compressed-size", "'4,5,5'", "TxHxW")),
        (["--run", "a", "--compressed-size", "4x0x5"], ("--compressed-size", "'4x0x5'", "positive")),
        (["--run", "a", "--batch-size", "0"], ("--batch-size", "'0'", "at least 1")),
        (["--run", "a", "--device", "abacus"], ("--device", "'abacus'", "cpu")),
    ],
)
def test_errors_name_option_and_value(parser, capsys, line, words):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(line)
    assert caught.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("raised", "line", "status"),
    [
        ("ConfigError('seed: wrong')", "error: seed: wrong", 2),
        ("StoppedBySignal('SIGTERM')", "stopped by SIGTERM; run it again", 75),
        ("KeyboardInterrupt", "interrupted; run it again", 130),
    ],
)
def test_printed_output_is_kept_and_the_error_comes_last(tmp_path, raised, line, status):
    """Both streams go to one file, for which Python buffers standard output."""
    code = f"""
from lookupvivit.config import ConfigError
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.training.signals import StoppedBySignal
with one_line_errors("run it again"):
    print("printed before")
    raise {raised}
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with (tmp_path / "log").open("w") as log:
        completed = subprocess.run([sys.executable, "-c", code], stdout=log, stderr=log, env=environment)
    assert completed.returncode == status
    assert (tmp_path / "log").read_text().splitlines() == ["printed before", line]


@pytest.mark.parametrize(
    ("context", "line"),
    [
        ("closed_output.ends_quietly()", "interrupted"),
        ("errors.one_line_errors('run it again')", "interrupted; run it again"),
    ],
)
def test_an_interrupted_import_ends_with_one_line(context, line):
    code = f"""
import sys
from lookupvivit.cli import closed_output, errors
sys.modules["torch"] = None  # it cannot be imported again
with {context}:
    raise KeyboardInterrupt
"""
    completed = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert completed.returncode == 130 and completed.stderr == f"{line}\n"


def test_the_error_of_a_full_disk_reports_the_free_space(tmp_path, capsys):
    file = tmp_path / "missing" / "file"
    with pytest.raises(SystemExit):
        exit_with_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)))
    assert re.search(rf"'{re.escape(str(file))}'; \d+\.\d GB are free there\n$", capsys.readouterr().err)
