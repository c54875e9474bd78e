"""Write images as a video, atomically: H.264 in MP4 (needs PyAV) or an animated GIF (needs Pillow)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.io.atomic import atomic_write
from data_pipelines.video.streams import file_url

BT709 = 1  # FFmpeg's number of this matrix, of these primaries and of this transfer function
LIMITED_RANGE = 1  # FFmpeg's number: luma from 16 to 235
MIN_GIF_MILLISECONDS = 20  # browsers slow down frames that are displayed for less


def save_mp4(path: str | Path, images: Iterable[np.ndarray], fps: float | Fraction) -> None:
    """Write images as H.264 in yuv420p, which all browsers and players support.

    An odd height or width, which yuv420p does not support, is extended by a white line. The index precedes the data, so
    that browsers play the file while it downloads. The colour space is declared as BT.709; undeclared, players guess it
    from the frame size.

    Args:
        path: the file.
        images: uint8 (H, W, 3), all of one size.
        fps: frames per second.

    Raises:
        ValueError: there are no images.
    """
    import av

    first, images = _peek(path, images)
    height, width = (size + size % 2 for size in first.shape[:2])
    options = {"movflags": "+faststart"}
    with atomic_write(path) as temporary, av.open(file_url(temporary), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": "16", "preset": "medium", "tune": "stillimage"}
        encoder = stream.codec_context
        encoder.colorspace = encoder.color_primaries = encoder.color_trc = BT709
        encoder.color_range, encoder.thread_count = LIMITED_RANGE, 2
        for image in images:
            padding = [(0, size % 2) for size in image.shape[:2]]
            even = np.pad(image, [*padding, (0, 0)], constant_values=255)
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())  # frames that the encoder still holds


def save_gif(path: str | Path, images: Iterable[np.ndarray], fps: float | Fraction) -> None:
    """Write images as a GIF that loops forever.

    Args:
        path: the file.
        images: uint8 (H, W, 3), all of one size.
        fps: frames per second, at most 50; GIF counts in hundredths of a second.

    Raises:
        ValueError: there are no images.
    """
    _, images = _peek(path, images)
    first, *others = (Image.fromarray(image).quantize(256, dither=Image.Dither.NONE) for image in images)
    duration = max(MIN_GIF_MILLISECONDS, round(100 / fps) * 10)
    with atomic_write(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)


def _peek(path: str | Path, images: Iterable[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first image, and an iterator over all of them."""
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise ValueError(f"{path}: found no images, expected at least one")
    return first, chain([first], images)
