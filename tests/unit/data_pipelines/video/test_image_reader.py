"""Images and folders of images as videos."""

import pytest
from PIL import Image

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.preparation.scanning import inspect_video
from data_pipelines.video.reader import read_frames


@pytest.fixture
def frames(tmp_path):
    """A folder of three images, 20 x 10 pixels, with their number as the red value."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (2, 10, 1):
        Image.new("RGB", (20, 10), (number, 0, 0)).save(folder / f"img_{number}.png")
    return folder


def test_frames_are_in_the_order_of_their_numbers(frames):
    assert read_frames(frames, [0, 1, 2])[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert read_frames(frames / "img_10.png", [0]).shape == (1, 10, 20, 3)
    assert inspect_video(str(frames))["frames"] == 3


def test_images_of_different_sizes_are_an_error(frames):
    Image.new("RGB", (10, 10)).save(frames / "img_3.png")
    with pytest.raises(VideoDecodeError, match=r"img_3\.png: found \(10, 10\)"):
        read_frames(frames, [0, 2])
    with pytest.raises(VideoDecodeError, match=r"\(10, 10\).* index 2"):
        inspect_video(str(frames))


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(VideoDecodeError, match="without images"):
        read_frames(tmp_path, [0])
