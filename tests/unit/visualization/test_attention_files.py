"""Files of attention maps: which are written, and what is in them."""

import av
import numpy as np
import pytest
from PIL import Image
from support.attention import make_maps

from lookupvivit.visualization.attention_files import AttentionWriter, output_stems, predicted_class


class Board:
    """Records what a TensorBoard writer receives: (tag, step) -> shape."""

    def __init__(self):
        self.images = {}

    def add_image(self, tag, image, step=None, dataformats="CHW"):
        assert dataformats == "HWC"
        self.images[tag, step] = image.shape


def test_a_video_has_a_figure_and_videos(tmp_path):
    board = Board()
    maps = [make_maps(3, 32), make_maps(3, 32, compressed_size=(2, 3, 3))]
    writer = AttentionWriter(["left", "right"], gif=True, board=board)
    files = writer.write(maps, "sub/a.mp4", tmp_path / "sub" / "a", [0, 0.5, 1])
    assert [file.name for file in files] == ["a_attention.png", "a_attention.mp4", "a_attention.gif"]
    assert sorted(files) == sorted((tmp_path / "sub").iterdir())
    with av.open(str(files[1])) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3 and video.streams.video[0].average_rate == 1
    assert Image.open(files[2]).n_frames == 3
    steps = {("attention/sub/a.mp4", None), *(("attention_video/sub/a.mp4", step) for step in range(3))}
    assert board.images.keys() == steps
    assert Image.open(files[0]).height == board.images["attention/sub/a.mp4", None][0] > 3 * 176  # frames and two maps


def test_an_image_has_one_figure(tmp_path):
    maps = [make_maps(1, side, compressed_size=size) for side in (32, 48) for size in ((1, 3, 3), (1, 5, 5))]
    (file,) = AttentionWriter().write(maps, "a.png", tmp_path / "a", np.zeros(1))
    assert file.name == "a_attention.png" and Image.open(file).width > 5 * 256  # the image and four maps


@pytest.mark.parametrize(("fps", "num_frames", "rate"), [(12.5, 2, 12.5), (None, 8, 2), (None, 2, 1)])
def test_videos_last_four_seconds_or_have_the_chosen_rate(tmp_path, fps, num_frames, rate):
    files = AttentionWriter(fps=fps).write([make_maps(num_frames, 32)], "a", tmp_path / "a", np.arange(num_frames))
    with av.open(str(files[1])) as video:
        assert video.streams.video[0].average_rate == rate


def test_predicted_class():
    assert predicted_class(make_maps(), ["left", "right"]) == "right (75\u00a0%)"
    assert predicted_class(make_maps(), ["", "\x1b[31m\nred"]) == "\\x1b[31m\\nred (75\u00a0%)"
    assert predicted_class(make_maps()) == "class 1 (75\u00a0%)"


def test_output_stems_keep_a_suffix_only_where_it_is_needed():
    assert output_stems(["a.mp4", "b.mp4", "b.png"]) == ["a", "b.mp4", "b.png"]
    assert output_stems(["x.mp4", "x"]) == ["x.mp4", "x"]
    assert output_stems(["sub/a.mp4", "a.mp4"]) == ["sub/a", "a"]
