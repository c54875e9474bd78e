"""Time and memory of other processes, and the videos that they read."""

import sys

import numpy as np
import pytest
from support.videos import decode_all, encode

from lookupvivit.profiling.generated_videos import repeat
from lookupvivit.profiling.process_usage import measure_process

WORK = """
import subprocess, sys, time
block = bytearray(b"x" * 100_000_000)
while time.process_time() < 1:
    pass
if len(sys.argv) > 1:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""


def test_usage_includes_children():
    alone, with_child = (measure_process([sys.executable, "-c", WORK, *rest]) for rest in ([], [WORK]))
    assert alone.cpu >= 1 and alone.elapsed >= 1 and alone.peak > 100e6
    assert with_child.cpu >= 2 and with_child.peak > 200e6


def test_a_command_that_fails():
    with pytest.raises(OSError, match="exit status 3"):
        measure_process([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_long_video_repeats_a_short_one(tmp_path):
    short = encode(tmp_path / "short.mp4", frames=20, bframes=2)
    repeated = decode_all(repeat(short, tmp_path / "long.mp4", 3))
    assert np.array_equal(repeated, np.concatenate([decode_all(short)] * 3))
