"""What a scan suggests."""

from data_pipelines.preparation.scanning import VideoRecord
from lookupvivit.cli.prepare import covering_rate


def record(frames, seconds, status="ok"):
    return VideoRecord("x.mp4", 0, status, frames=frames, seconds=seconds)


def test_a_clip_covers_the_median_video_without_repeating_frames():
    videos = [record(50, 2.0), record(100, 4.0), record(400, 16.0), record(0, 0.0, "failed")]
    assert covering_rate(videos, 16) == 4  # 16 frames in 4 seconds
    assert covering_rate(videos, 200) == 25  # the videos have no more
    assert covering_rate([record(1, 0.04)], 16) is None and covering_rate(videos, 1) is None
