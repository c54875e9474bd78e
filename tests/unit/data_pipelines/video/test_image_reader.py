"""Images and folders of images as videos."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.preparation.scanning import inspect_video
from data_pipelines.video.reader import TIMEOUT, read_frames


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


def test_hidden_files_are_no_frames(frames):
    (frames / "._img_1.png").write_bytes(b"AppleDouble")
    assert read_frames(frames, [0, 1, 2])[:, 0, 0, 0].tolist() == [1, 2, 10]


@pytest.mark.parametrize(("suffix", "timeout"), [("png", 0), ("tif", TIMEOUT)])
def test_16_bit_grey_values_are_scaled(tmp_path, suffix, timeout):
    ramp = np.linspace(0, 65535, 96).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (8, 1))).save(tmp_path / f"ramp.{suffix}")
    with pytest.warns(UserWarning, match="16-bit"):
        frame = read_frames(tmp_path / f"ramp.{suffix}", [0], timeout=timeout)[0]
    assert np.array_equal(frame, np.tile(np.rint(ramp / 257)[:, None], (8, 1, 3)))


def test_warnings_of_pillow_are_not_shown(tmp_path, recwarn):
    """They name neither the file nor what follows from them."""
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "large.png").close()
    recwarn.clear()
    with pytest.raises(VideoDecodeError, match="found 10000 x 10000 pixels"):
        read_frames(tmp_path / "large.png", [0], timeout=0)
    assert not list(recwarn)


def test_a_pipe_is_no_image_and_no_video(tmp_path):
    for name in ("pipe.jpg", "pipe.mp4"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(VideoDecodeError, match=rf"{name}: cannot be decoded; found a pipe or device"):
            read_frames(tmp_path / name, [0])


def test_values_of_32_bits_are_an_error(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(VideoDecodeError, match=r"depth\.tif: found 32-bit values"):
        read_frames(tmp_path / "depth.tif", [0])


def image_bytes(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)).save(
        file, format, **options
    )
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of one colour that claims a size."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
DAMAGED = {
    "truncated JPEG": lambda: image_bytes("JPEG")[:-200],
    "truncated JPEG 2000": lambda: image_bytes("JPEG2000")[:-200],
    "PostScript": lambda: POSTSCRIPT,
    "too many pixels": lambda: png_header(8193, 8192),
    "text": lambda: b"not an image",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_cannot_be_read_is_one_error_with_the_name_of_the_file(tmp_path, kind):
    (tmp_path / "image.jpg").write_bytes(DAMAGED[kind]())
    with pytest.raises(VideoDecodeError, match=r"image\.jpg"):
        read_frames(tmp_path / "image.jpg", [0])


def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *args, **options: started.append(args))
    (tmp_path / "image.jpg").write_bytes(POSTSCRIPT)
    with pytest.raises(VideoDecodeError, match=r"image\.jpg"):
        read_frames(tmp_path / "image.jpg", [0], timeout=0)
    assert not started


@pytest.mark.parametrize(
    "error", [MemoryError(), KeyError("Orientation"), struct.error("unpack"), RuntimeError("avif")]
)
def test_every_exception_of_a_parser_is_the_readers_error(frames, monkeypatch, error):
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("PIL.Image.open", fail)
    with pytest.raises(VideoDecodeError, match=r"img_1\.png"):
        read_frames(frames, [0], timeout=0)


def test_a_pipe_in_a_folder_is_an_error_and_no_wait(frames):
    os.mkfifo(frames / "img_3.png")
    with pytest.raises(VideoDecodeError, match=r"img_3\.png: expected a regular file"):
        read_frames(frames, [2])
