"""What the benchmark of long videos measures with."""

import os
import time

import numpy as np
from support.videos import decode_all, encode

from lookupvivit.cli.benchmark_stream import _usage, repeat


def test_a_long_video_repeats_a_short_one(tmp_path):
    short = encode(tmp_path / "short.mp4", frames=20, bframes=2)
    repeated = decode_all(repeat(short, tmp_path / "long.mp4", 3))
    assert np.array_equal(repeated, np.concatenate([decode_all(short)] * 3))


def test_usage_is_that_of_the_process():
    before, start = _usage(os.getpid()), time.process_time()
    block = np.ones(50_000_000 // 8)
    while time.process_time() < start + 0.1:
        block += 1
    after = _usage(os.getpid())
    assert after.seconds - before.seconds > 0.05 and after.peak >= before.peak > 10e6
