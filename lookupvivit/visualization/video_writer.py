"""Pictures one after the other as a film that any player shows: H.264 in MP4 (needs PyAV), or GIF (needs Pillow)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

BT709, LIMITED = 1, 1  # FFmpeg's numbers: of matrix, primaries and transfer alike; of luma from 16 to 235


def save_mp4(path: str | Path, pictures: Iterable[np.ndarray], fps: float | Fraction) -> None:
    """Write uint8 pictures (H, W, 3), all of one size, as H.264 yuv420p; the file appears whole or not at all.

    An odd height or width, which yuv420p cannot have, gets a white line. The index stands first, so that browsers play
    the file while it loads, and the colours are stated (BT.709), which players would guess by the size.

    Raises:
        ValueError: no picture.
    """
    import av

    first, pictures = _peeked(path, pictures)
    height, width = (size + size % 2 for size in first.shape[:2])
    options = {"movflags": "+faststart"}
    with _whole(path) as beside, av.open(str(beside), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": "16", "preset": "medium", "tune": "stillimage"}
        coder = stream.codec_context
        coder.colorspace = coder.color_primaries = coder.color_trc = BT709
        coder.color_range, coder.thread_count = LIMITED, 2
        for picture in pictures:
            odd = [(0, size % 2) for size in picture.shape[:2]]
            even = np.pad(picture, [*odd, (0, 0)], constant_values=255)
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            container.mux(
                stream.encode(frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED))
            )
        container.mux(stream.encode())


def save_gif(path: str | Path, pictures: Iterable[np.ndarray], fps: float | Fraction) -> None:
    """Write uint8 pictures (H, W, 3) as a GIF that repeats for ever; the file appears whole or not at all.

    Raises:
        ValueError: no picture.
    """
    _, pictures = _peeked(path, pictures)
    first, *others = (Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE) for picture in pictures)
    # GIF counts in hundredths of a second, and browsers slow down what is shown for less than two
    duration = max(20, round(100 / fps) * 10)
    with _whole(path) as beside:
        first.save(beside, format="GIF", save_all=True, append_images=others, duration=duration, loop=0)


def _peeked(path: str | Path, pictures: Iterable[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first picture, and all."""
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        raise ValueError(f"{path}: found no picture to make a film of, must be at least one")
    return first, chain([first], pictures)


@contextmanager
def _whole(path: str | Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place at the end, or goes away where that fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
