"""predict --follow by its command line: files, pipes, terminals and Ctrl-C."""

import io
import json
import os
import signal
import subprocess
import sys

import av
import numpy as np
import pytest
from support.in_process import run_tool
from support.paths import ROOT
from support.saved_models import save_random_model
from support.videos import encode

from lookupvivit.cli.follow import LiveDisplay
from lookupvivit.evaluation.segments import Segment
from lookupvivit.evaluation.stream import ClipPrediction
from lookupvivit.visualization.time_format import format_time


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("models") / "run", seed=2)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Parts of a second each in red, green and blue, which the model distinguishes, at 10 frames per second."""
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for index in range(80):
            image = np.zeros((64, 80, 3), np.uint8)
            image[..., index // 10 % 3] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def follow(monkeypatch, capsys, run):
    """Run the tool in this process; returns exit status, output and errors."""
    return lambda *arguments: run_tool(monkeypatch, capsys, "predict.py", "--run", run, "--follow", *arguments)


def test_a_file_has_the_segments_of_predict(tmp_path, monkeypatch, capsys, run, video, follow):
    options = ["--window", "0.2", "--top", "2"]
    status, output, error = follow(video, *options, "--json", tmp_path / "lines")
    assert (status, error) == (0, "") and "\x1b" not in output and "\r" not in output
    files = ["--run", run, video, *options, "--json", tmp_path / "file"]
    assert run_tool(monkeypatch, capsys, "predict.py", *files)[0] == 0
    [expected] = json.loads((tmp_path / "file").read_text(encoding="utf-8"))["videos"]
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text(encoding="utf-8").splitlines()]
    segments = [line["segment"] for line in lines if "segment" in line]
    assert len(segments) == len(expected["segments"]) >= 8
    for found, wanted in zip(segments, expected["segments"], strict=True):
        assert found == wanted | {"probability": pytest.approx(wanted["probability"], abs=2e-6)}
    clips = [line for line in lines if "segment" not in line]
    assert [clip["end"] for clip in clips] == [clip["end"] for clip in expected["timeline"]]
    assert all(
        clip["top"][0]["class"] == wanted["top"][0]["class"]
        for clip, wanted in zip(clips, expected["timeline"], strict=True)
    )
    changes = [f"{format_time(part['start'], tenths=True)}  {part['class']}" for part in segments]
    assert [line.strip() for line in output.splitlines()] == [*changes, "0:08.0  end"]


@pytest.mark.slow
def test_results_of_another_call_are_kept_until_there_are_new_ones(tmp_path, follow, video):
    results = tmp_path / "night.jsonl"
    results.write_text("earlier\n")
    status, _, error = follow(tmp_path / "offline.mp4", "--json", results)
    assert status == 2 and "offline.mp4" in error and results.read_text() == "earlier\n"
    status, _, error = follow(video, "--json", tmp_path / "new" / "lines.jsonl")
    assert not status and len((tmp_path / "new" / "lines.jsonl").read_text().splitlines()) > 8, error


def test_a_pipe_ends_with_ctrl_c(tmp_path, run):
    """Raw video on standard input, which does not end."""
    raw = encode(tmp_path / "raw.y4m", "rawvideo", frames=40, width=80, height=64)
    command = [
        sys.executable,
        ROOT / "tools" / "predict.py",
        "--follow",
        "-",
        "--run",
        run,
        "--json",
        tmp_path / "lines",
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # a suite in the background inherits that SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        process.stdin.write(raw.read_bytes())
        process.stdin.flush()
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error.decode().startswith("interrupted") and error.count(b"\n") == 1
    assert first.startswith(b"   0:00.0  ") and rest.splitlines()[-1].endswith(b"end")
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["start"] == 0 and "segment" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["nowhere"], ["error: nowhere: cannot be opened", "no such file or device", "/dev/video0", "rtsp://"]),
        (["/dev/null"], ["error: /dev/null: cannot be opened"]),
        (["rtsp://127.0.0.1:9/camera"], ["error: rtsp://127.0.0.1:9/camera: cannot be opened"]),
        ([ROOT / "README.md"], ["README.md: cannot be opened"]),
        (["a.mp4", "--views", "4x3"], ["--follow", "--views"]),
        (["a.mp4", "b.mp4"], ["--follow", "VIDEO"]),
        (["a.mp4", "--output", "folder"], ["--follow", "--output"]),
    ],
)
def test_a_source_that_cannot_be_followed_is_one_line(follow, arguments, facts):
    status, _, error = follow(*arguments)
    assert status == 2 and "Traceback" not in error
    assert all(fact in error.splitlines()[-1] for fact in facts)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_the_latest_clip_below_complete_segments():
    terminal = Terminal()

    def clip(end, *probabilities):
        return ClipPrediction(end - 1, end, ("a", "b\x1b[2J"), np.log(probabilities), np.array(probabilities))

    with LiveDisplay(terminal) as display:
        display.update(None, clip(1.0, 0.9, 0.1))
        display.update((0.0, "a"), clip(2.0, 0.2, 0.8))
        display.end_segment(Segment(0.0, 1.0, "a", 0.9))
        display.finish(2.0)
    shown = terminal.getvalue().replace("\x1b[K", "").split("\n")
    assert shown[0].split("\r")[1:] == [
        "   0:01.0  a (90 %)",
        "   0:02.0  b\\x1b[2J (80 %)",
        "  0:00.0 - 0:01.0  a (90 %)",
    ]
    assert [line.strip("\r ") for line in shown[1:]] == ["0:02.0  end", ""]
