"""Tools whose output has no reader any more, as in ``tool | head``."""

import json
import os
import runpy
import sys

import pytest
from support.paths import ROOT
from support.saved_models import save_random_model

TOOLS = sorted(file.name for file in (ROOT / "tools").glob("*.py"))


@pytest.fixture
def run_without_reader(monkeypatch, capsys):
    """Run a tool in this process with an output that nobody reads; returns its status and its errors."""
    streams = []

    def run(tool, *arguments):
        reader, writer = os.pipe()
        os.close(reader)
        streams.append(os.fdopen(writer, "w"))
        monkeypatch.setattr(sys, "stdout", streams[-1])
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        monkeypatch.setattr("os._exit", sys.exit)
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        return exit.value.code, capsys.readouterr().err

    yield run
    for stream in streams:
        with pytest.raises(BrokenPipeError):
            stream.close()


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_ends_quietly(run_without_reader, tool):
    assert run_without_reader(tool, "--help") == (141, "")


def test_predictions_so_far_are_saved(tmp_path, small_set, run_without_reader):
    run, file = save_random_model(tmp_path / "run"), tmp_path / "predictions.json"
    videos = [small_set / "videos" / f"{number}.mp4" for number in (1, 2, 3)]
    assert run_without_reader("predict.py", *videos, "--run", run, "--views", "1x1", "--json", file) == (141, "")
    (report,) = json.loads(file.read_text())["videos"]
    assert report["path"] == str(videos[0]) and report["top"]


def test_an_output_without_reader_is_recognised_after_a_failed_write_was_dropped(monkeypatch):
    from lookupvivit.cli.closed_output import exit_if_output_is_closed

    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr("os._exit", sys.exit)
        exit_if_output_is_closed()  # it has a reader
        os.close(reader)
        with pytest.raises(SystemExit) as exit:
            exit_if_output_is_closed()
        assert exit.value.code == 141


def test_another_broken_pipe_is_an_error(capsys):
    from lookupvivit.cli.closed_output import ends_quietly

    with pytest.raises(BrokenPipeError), ends_quietly():
        raise BrokenPipeError
