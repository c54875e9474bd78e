"""How a tool ends over what is not its fault."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("raised", "line", "status"),
    [
        ("ConfigError('seed: wrong')", "error: seed: wrong", 2),
        ("StoppedBySignal('SIGTERM')", "stopped by SIGTERM; go on", 75),
        ("KeyboardInterrupt", "interrupted; go on", 130),
    ],
)
def test_what_was_printed_is_kept_and_the_reason_comes_last(tmp_path, raised, line, status):
    """In one file, to which Python writes standard output late."""
    code = f"""
from lookupvivit.config import ConfigError
from lookupvivit.cli.arguments import one_line_errors
from lookupvivit.training.signals import StoppedBySignal
with one_line_errors("go on"):
    print("told before")
    raise {raised}
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run([sys.executable, "-c", code], stdout=log, stderr=log, env=environment)
    assert done.returncode == status
    assert (tmp_path / "log").read_text().splitlines() == ["told before", line]
