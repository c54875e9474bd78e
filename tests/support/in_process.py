"""Run a tool in the process of the test, which saves the seconds that imports take."""

from __future__ import annotations

import runpy
import sys

import pytest

from support.paths import ROOT


def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tool: str, *arguments: object):
    """Run ``tools/<tool>`` with these arguments; returns exit status, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
    monkeypatch.setattr("os._exit", sys.exit)
    capsys.readouterr()
    status: object = 0
    try:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    except SystemExit as exit:
        status = exit.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err
