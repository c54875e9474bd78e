"""Decoders that hang, crash or lie in their own process cost one file, not a run."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from support.videos import decode_all, encode

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.decoding_process import DecodingProcess, decoding_process
from data_pipelines.video.reader import open_video, read_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4", options={"x264-params": "keyint=12"})


def test_a_decoder_that_hangs_is_stopped_and_the_next_one_tried(clip):
    """A stopped process is as deaf as one that loops inside C."""
    truth = decode_all(clip)
    with open_video(clip, seconds=1) as video:
        os.kill(decoding_process()._child.pid, signal.SIGSTOP)
        begun = time.monotonic()
        np.testing.assert_array_equal(video.read([5, 50]), truth[[5, 50]])  # by PyAV, in a new process
        assert 1 <= time.monotonic() - begun < 10
    deaf = r"clip\.mp4.*decord: gave nothing within 1 s and was stopped"
    with pytest.raises(VideoDecodeError, match=deaf), open_video(clip, "decord", seconds=1) as video:
        os.kill(decoding_process()._child.pid, signal.SIGSTOP)
        video.read([0])
    assert read_frames(clip, [0]).shape == (1, 64, 96, 3)


def test_a_decoder_that_crashes_takes_nobody_with_it(clip):
    with open_video(clip) as video:
        os.kill(decoding_process()._child.pid, signal.SIGSEGV)
        np.testing.assert_array_equal(video.read([7]), decode_all(clip)[[7]])
    dead = "pyav: ended the decoding process by signal SIGABRT"
    with pytest.raises(VideoDecodeError, match=dead), open_video(clip, "pyav") as video:
        os.kill(decoding_process()._child.pid, signal.SIGABRT)
        time.sleep(0.1)
        video.read([0])


def test_several_videos_may_be_open_at_once(tmp_path, clip):
    other = encode(tmp_path / "other.mp4", frames=9, width=32, height=48)
    with open_video(clip) as first, open_video(other) as second:
        assert second.read([0]).shape == (1, 48, 32, 3)
        np.testing.assert_array_equal(first.read([3]), decode_all(clip)[[3]])


def test_the_process_ends_with_its_user(clip):
    process = DecodingProcess()
    child = process._child.pid
    process._child.stdin.close()
    assert process._child.wait(timeout=10) == 0
    assert not os.path.exists(f"/proc/{child}/fd")


class Reads(torch.utils.data.Dataset):
    """Reads a clip in a loader's worker and says who decoded it."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 6

    def __getitem__(self, index):
        frames = read_frames(self.path, [index])
        return int(frames.sum(dtype=np.int64)), os.getpid(), decoding_process()._child.pid


def test_every_worker_has_a_process_of_its_own(clip):
    read_frames(clip, [0])  # this process has one already, which forks must not share
    rows = [tuple(map(int, row)) for row in torch.utils.data.DataLoader(Reads(clip), num_workers=2)]
    assert [row[0] for row in rows] == decode_all(clip)[:6].sum((1, 2, 3), dtype=np.int64).tolist()
    assert len({row[1] for row in rows}) == len({row[2] for row in rows}) == 2
    assert decoding_process()._child.pid not in {row[2] for row in rows}
