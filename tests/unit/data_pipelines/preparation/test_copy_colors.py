"""Copies have the colours of their originals, whatever matrix, range and depth these have."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.preparation.copies import copy_video
from data_pipelines.video.reader import read_frames

MATRICES = {"bt601": (6, 0.299, 0.114), "bt709": (1, 0.2126, 0.0722), "bt2020": (9, 0.2627, 0.0593)}
COLORS = np.array([(200, 40, 40), (40, 180, 60), (90, 140, 220), (20, 20, 20), (230, 230, 230)], np.uint8)
SIDE = 32  # of a patch, pixels
MAX_ERROR = 4  # grey levels: the rounding of 8-bit YUV and of the conversions


def yuv(rgb: np.ndarray, matrix: str, is_full: bool, bits: int) -> np.ndarray:
    """Y, Cb and Cr of a colour by the definition of ITU-R BT.601, 709 and 2020."""
    _, kr, kb = MATRICES[matrix]
    red, green, blue = rgb / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = np.array([(blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    if is_full:
        top = 2**bits - 1
        values = [luma * top, *(chroma * top + 2 ** (bits - 1))]
    else:
        values = [v * 2 ** (bits - 8) for v in (16 + 219 * luma, *(128 + 224 * chroma))]
    return np.round(values).astype(np.uint8 if bits == 8 else np.uint16)


def encode_colors(path: Path, matrix: str, is_full: bool, bits: int) -> Path:
    """Write a video of `COLORS` next to each other, converted here and not by FFmpeg."""
    number, color_range = MATRICES[matrix][0], 2 if is_full else 1
    pixels = "yuv420p" if bits == 8 else "yuv420p10le"
    values = np.stack([yuv(color, matrix, is_full, bits) for color in COLORS])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = SIDE * len(COLORS), SIDE, pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = number, color_range
        for _ in range(4):
            frame = av.VideoFrame(stream.width, stream.height, pixels)
            frame.colorspace, frame.color_range = number, color_range
            for plane, channel in zip(frame.planes, values.T, strict=True):
                rows = np.frombuffer(plane, channel.dtype).reshape(plane.height, -1)
                rows[:, : plane.width] = np.repeat(channel, plane.width // len(COLORS))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_colors(path: Path, backend: str = "auto") -> np.ndarray:
    """The colour in the middle of each patch, int (len(COLORS), 3)."""
    frame = read_frames(path, [1], backend)[0].astype(int)
    step = frame.shape[1] // len(COLORS)
    return frame[frame.shape[0] // 2, step // 2 :: step]


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("short_side", [SIDE, SIDE // 2], ids=["same size", "smaller"])
def test_colors_of_originals_and_copies(tmp_path, matrix, is_full, bits, short_side):
    original = encode_colors(tmp_path / "original.mp4", matrix, is_full, bits)
    copy_video(str(original), str(tmp_path / "copy.mp4"), short_side, keyframe_every=4, crf=1)
    for path in (original, tmp_path / "copy.mp4"):
        for backend in ("auto", "pyav"):
            assert np.abs(read_colors(path, backend) - COLORS).max() <= MAX_ERROR, (path.name, backend)


def test_copies_of_rgb_and_grey_videos(tmp_path):
    patches = np.repeat(np.tile(COLORS[None], (SIDE, 1, 1)), SIDE, axis=1)
    gif = tmp_path / "rgb.gif"
    others = [np.roll(patches, 5 * i, axis=1) for i in (1, 2)]  # equal images would be one frame
    Image.fromarray(patches).save(gif, save_all=True, append_images=[Image.fromarray(other) for other in others])
    lossless, grey = tmp_path / "rgb.mkv", tmp_path / "grey.mkv"
    for path, codec, pixels in ((lossless, "libx264rgb", "rgb24"), (grey, "libx264", "gray")):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options={"crf": "1"})
            stream.width, stream.height, stream.pix_fmt = patches.shape[1], SIDE, pixels
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(patches, format="rgb24")))
            container.mux(stream.encode())
    for path in (gif, lossless, grey):
        copy_video(str(path), str(tmp_path / "copy.mp4"), SIDE, keyframe_every=4, crf=1)
        difference = np.abs(read_colors(tmp_path / "copy.mp4") - read_colors(path)).max()
        assert difference <= MAX_ERROR, (path.name, read_colors(path), read_colors(tmp_path / "copy.mp4"))
