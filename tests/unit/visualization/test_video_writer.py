from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lookupvivit.visualization.video_writer import save_gif, save_mp4


def flat(count, height=90, width=121):
    """Pictures of one colour each, and the colours."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 3), np.uint8)
    return [np.broadcast_to(colour, (height, width, 3)).copy() for colour in colours], colours


def test_an_mp4_plays_everywhere(tmp_path):
    pictures, colours = flat(9)
    save_mp4(tmp_path / "deep" / "film.mp4", iter(pictures), 2.5)
    with av.open(str(tmp_path / "deep" / "film.mp4")) as container:
        (stream,) = container.streams
        coder = stream.codec_context
        assert (coder.name, coder.pix_fmt, coder.width, coder.height) == ("h264", "yuv420p", 122, 90)
        assert stream.average_rate == Fraction(5, 2) and coder.colorspace == 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 9
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame[20:70, 20:90].astype(int) - colour).max() < 8
        assert frame[:, 121].mean() > 200  # the added column is white
    assert (tmp_path / "deep" / "film.mp4").read_bytes().find(b"moov") < 100  # the index before the pictures
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["film.mp4"]


def test_a_gif_repeats_at_its_rate(tmp_path):
    pictures, colours = flat(5)
    save_gif(tmp_path / "film.gif", pictures, 4)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 5 and film.info["loop"] == 0 and film.info["duration"] == 250
        for index, colour in enumerate(colours):
            film.seek(index)
            assert np.abs(np.asarray(film.convert("RGB"))[40, 40].astype(int) - colour).max() < 5


def test_no_picture_leaves_no_file(tmp_path):
    for save, name in ((save_mp4, "film.mp4"), (save_gif, "film.gif")):
        with pytest.raises(ValueError, match=f"{name}: found no picture"):
            save(tmp_path / name, [], 4)
    assert not list(tmp_path.iterdir())
