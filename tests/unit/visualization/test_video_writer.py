from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lookupvivit.visualization.video_writer import save_gif, save_mp4


def uniform_images(count, height=90, width=121):
    """Images of one colour each, and the colours."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 3), np.uint8)
    return [np.broadcast_to(colour, (height, width, 3)).copy() for colour in colours], colours


def test_mp4_is_h264_with_the_index_first_and_the_right_colours(tmp_path):
    images, colours = uniform_images(9)
    file = tmp_path / "deep" / "video.mp4"
    save_mp4(file, iter(images), 2.5)
    with av.open(str(file)) as container:
        (stream,) = container.streams
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 122, 90)
        assert stream.average_rate == Fraction(5, 2) and codec.colorspace == 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 9
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame[20:70, 20:90].astype(int) - colour).max() < 8
        assert frame[:, 121].mean() > 200  # the added column is white
    assert file.read_bytes().find(b"moov") < 100
    assert [path.name for path in file.parent.iterdir()] == ["video.mp4"]


def test_gif_loops_at_its_rate(tmp_path):
    images, colours = uniform_images(5)
    save_gif(tmp_path / "video.gif", images, 4)
    with Image.open(tmp_path / "video.gif") as gif:
        assert gif.n_frames == 5 and gif.info["loop"] == 0 and gif.info["duration"] == 250
        for index, colour in enumerate(colours):
            gif.seek(index)
            assert np.abs(np.asarray(gif.convert("RGB"))[40, 40].astype(int) - colour).max() < 5


@pytest.mark.parametrize(("save", "name"), [(save_mp4, "video.mp4"), (save_gif, "video.gif")])
def test_without_images_no_file_is_written(tmp_path, save, name):
    with pytest.raises(ValueError, match=name):
        save(tmp_path / name, [], 4)
    assert not list(tmp_path.iterdir())
