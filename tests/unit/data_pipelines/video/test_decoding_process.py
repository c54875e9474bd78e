"""A decoder that hangs or crashes in its process costs one file, not the run."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from support.videos import decode_all, encode

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video import decoding_process as module
from data_pipelines.video.decoding_process import DecodingProcess, decoding_process
from data_pipelines.video.reader import open_video, read_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("clips") / "clip.mp4", options={"x264-params": "keyint=12"})


def test_a_hanging_decoder_is_killed_and_the_next_backend_used(clip):
    """A stopped process behaves like one that loops in C code."""
    reference = decode_all(clip)
    with open_video(clip, timeout=5) as video:
        os.kill(decoding_process().pid, signal.SIGSTOP)
        start = time.monotonic()
        np.testing.assert_array_equal(video.read([5, 50]), reference[[5, 50]])  # PyAV in a new process
        assert time.monotonic() - start >= 5  # the time limit
    with (
        pytest.raises(VideoDecodeError, match=r"clip\.mp4.*decord: no answer within 5 s"),
        open_video(clip, "decord", timeout=5) as video,
    ):
        os.kill(decoding_process().pid, signal.SIGSTOP)
        video.read([0])
    assert read_frames(clip, [0]).shape == (1, 64, 96, 3)


def test_a_crashing_decoder_is_replaced(clip):
    with open_video(clip) as video:
        os.kill(decoding_process().pid, signal.SIGSEGV)
        np.testing.assert_array_equal(video.read([7]), decode_all(clip)[[7]])
    with pytest.raises(VideoDecodeError, match=r"pyav: .*SIGABRT"), open_video(clip, "pyav") as video:
        os.kill(decoding_process().pid, signal.SIGABRT)
        time.sleep(0.1)
        video.read([0])


def test_several_videos_are_open_at_once(tmp_path, clip):
    other = encode(tmp_path / "other.mp4", frames=9, width=32, height=48)
    with open_video(clip) as first, open_video(other) as second:
        assert second.read([0]).shape == (1, 48, 32, 3)
        np.testing.assert_array_equal(first.read([3]), decode_all(clip)[[3]])


def test_frames_pass_through_the_pipe_without_shared_memory(clip, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    process = DecodingProcess()
    monkeypatch.setattr(module, "decoding_process", lambda: process)
    np.testing.assert_array_equal(read_frames(clip, [3, 50]), decode_all(clip)[[3, 50]])
    process.kill()


def test_exceptions_in_the_child_are_reported():
    with pytest.raises(RuntimeError, match="KeyError"):
        decoding_process().ask(10, action="read", file=-1, indices=[0])
    with pytest.raises(RuntimeError, match="unknown"):
        decoding_process().ask(10, action="unknown")


def test_the_child_ends_when_the_parent_closes_the_pipe():
    process = DecodingProcess()
    process._requests.close()
    assert process._child.wait(timeout=10) == 0
    assert not process.is_usable


class DecodedInWorker(torch.utils.data.Dataset):
    """(sum of a frame, process id of the worker, process id of its decoding process)."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 6

    def __getitem__(self, index):
        frames = read_frames(self.path, [index])
        return int(frames.sum(dtype=np.int64)), os.getpid(), decoding_process().pid


def test_every_loader_worker_has_its_own_child(clip):
    read_frames(clip, [0])  # starts a child of this process, which forked workers must not use
    rows = [tuple(map(int, row)) for row in torch.utils.data.DataLoader(DecodedInWorker(clip), num_workers=2)]
    sums, workers, children = zip(*rows, strict=True)
    assert list(sums) == decode_all(clip)[:6].sum((1, 2, 3), dtype=np.int64).tolist()
    assert len(set(workers)) == len(set(children)) == 2
    assert decoding_process().pid not in children
