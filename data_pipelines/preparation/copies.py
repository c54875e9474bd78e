"""Copies of videos that decode faster: smaller, in H.264, with frequent key frames and closed groups of pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.io.atomic import atomic_write
from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.streams import frame_rate, open_stream

if TYPE_CHECKING:
    import av


@dataclass(frozen=True)
class CopySettings:
    """How copies are encoded, and where they are written: H.264 in mp4 without sound.

    Attributes:
        folder: folder of the copies, which keep their names relative to ``root``.
        root: folder of the originals.
        short_side: pixels of the shorter side; smaller videos keep their size.
        keyframe_every: frames from one key frame to the next. A random clip costs half as many frames in addition to
            its own.
        crf: constant rate factor of x264.
    """

    folder: Path
    root: Path
    short_side: int = 256
    keyframe_every: int = 16
    crf: int = 20

    def target(self, path: str) -> Path:
        """Return the path of a video's copy."""
        relative = os.path.relpath(path, self.root)
        if relative.startswith(".."):  # outside root
            relative = os.path.abspath(path).lstrip("/")
        return (self.folder / relative).with_suffix(".mp4")


def copy_video(source: str, target: str, short_side: int, keyframe_every: int, crf: int) -> None:
    """Write a copy atomically; upright, with the times of the original's frames. See `CopySettings`.

    Raises:
        VideoDecodeError: the source cannot be decoded to its end. Nothing is written.
    """
    import av

    with (
        open_stream(source) as (container, stream),
        atomic_write(target) as temporary,
        av.open(str(temporary), "w", format="mp4") as output,
    ):
        encoder: av.VideoStream | None = None
        last_pts = -1
        for frame in container.decode(stream):
            if encoder is None:
                width, height = _even_size(frame.width, frame.height, short_side)
                num_turns = frame.rotation // 90 % 4
                size = (width, height) if num_turns % 2 == 0 else (height, width)
                encoder = _add_encoder(output, stream, size, keyframe_every, crf)
            image = _resize_upright(frame, width, height, num_turns)
            # Old AVIs give some frames no time, or that of the previous frame.
            if frame.pts is not None and frame.pts > last_pts:
                last_pts = frame.pts
            else:
                last_pts += frame.duration or 1
            image.pts = last_pts
            output.mux(encoder.encode(image))
        if encoder is None:
            raise VideoDecodeError("pyav: found no frame in the video stream")
        output.mux(encoder.encode())


def _add_encoder(output: Any, source: av.VideoStream, size: tuple[int, int], keyframe_every: int, crf: int) -> Any:
    """Add an H.264 stream with the clock of ``source`` to a container; ``size`` is (width, height)."""
    encoder = output.add_stream("libx264", rate=frame_rate(source.average_rate, 0, None))
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.time_base = "yuv420p", source.time_base
    encoder.codec_context.time_base = source.time_base
    encoder.codec_context.max_b_frames = 0
    encoder.codec_context.thread_count = 1
    encoder.options = {
        "preset": "fast",
        "tune": "fastdecode",  # without CABAC and loop filter, decoding takes about half as long
        "crf": str(crf),
        "g": str(keyframe_every),
        "keyint_min": str(keyframe_every),
    }
    return encoder


def _even_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Scale (width, height) down to ``short_side``, rounded to the even numbers that H.264 requires."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _resize_upright(frame: av.VideoFrame, width: int, height: int, num_turns: int) -> av.VideoFrame:
    """Resize a frame to ``width`` x ``height``, then turn it by 90 degrees counter-clockwise ``num_turns`` times."""
    import av

    resized = frame.reformat(width, height, format="yuv420p", interpolation="AREA")
    if num_turns:
        turned: Any = np.ascontiguousarray(np.rot90(resized.to_ndarray(format="rgb24"), num_turns))
        resized = av.VideoFrame.from_ndarray(turned, format="rgb24").reformat(format="yuv420p")
    if frame.time_base is not None:
        resized.time_base = frame.time_base
    resized.pict_type = 0  # let the encoder choose; the frame still has the type it had in the source
    return resized
