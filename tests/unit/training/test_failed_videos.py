"""Which videos count as failed, and what a killed run leaves of their list."""

import pytest
import torch

from data_pipelines.io.errors import DataError
from data_pipelines.video.reader import open_video
from lookupvivit.training.distributed import World
from lookupvivit.training.failed_videos import FailedVideos

WORLD = World(0, 1, torch.device("cpu"))


def failed_videos(run, limit=0.3):
    return FailedVideos(run, 10, limit, WORLD)


def test_a_video_counts_once_whatever_the_reasons(tmp_path):
    failed = failed_videos(tmp_path)
    for frame in (3, 7, 5, 9):
        failed.add(["", f"a: b.mp4: cannot be decoded; pyav: the stream ends before frame {frame}"])
        failed.gather()
    assert list(failed.reasons) == ["a: b.mp4"]
    assert (tmp_path / "failed_videos.txt").read_text().endswith("before frame 3\n")
    failed.add(["c.mp4: no such video file\nd.mp4: cannot be decoded; pyav: no"])
    assert [reason[:5] for reason in failed.gather()] == ["c.mp4", "d.mp4"]
    failed.add(["e.mp4: no such video file"])
    with pytest.raises(DataError, match="4 of 10 training videos cannot be read"):
        failed.gather()


def test_messages_of_readers_start_with_the_path(tmp_path):
    names = ("missing.mp4", "empty.mp4", "damaged.mp4", "damaged.jpg")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    (tmp_path / "damaged.jpg").write_bytes(b"no image")
    failed = failed_videos(tmp_path, limit=1)
    for name in names:
        with pytest.raises(DataError) as raised, open_video(tmp_path / name, timeout=0) as video:
            video.read([0])
        failed.add([str(raised.value)])
    failed.gather()
    assert list(failed.reasons) == sorted(str(tmp_path / name) for name in names)


def test_a_resumed_run_ignores_what_a_crash_left(tmp_path):
    """Half a line is no reason, and the next one does not continue it."""
    file = tmp_path / "failed_videos.txt"
    (tmp_path / "broken_videos.txt").write_text("a.mp4: cannot be decoded; x\n")
    file.write_text("b.mp4: cannot be decoded; x\n\0\0\0\0\nc.mp4: cann")
    failed = failed_videos(tmp_path)
    assert list(failed.reasons) == ["a.mp4", "b.mp4"]
    failed.add(["d.mp4: no such video file"])
    failed.gather()
    assert [line[:5] for line in file.read_text().splitlines()] == ["a.mp4", "b.mp4", "d.mp4"]
    assert failed_videos(tmp_path).reasons == failed.reasons
