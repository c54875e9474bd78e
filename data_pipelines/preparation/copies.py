"""Copies of videos that decode faster: smaller, in H.264, with frequent key frames and closed groups of pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.io.atomic import atomic_write
from data_pipelines.io.errors import VideoDecodeError, decode_errors, first_line
from data_pipelines.video.orientation import UPRIGHT, Orientation, orientation_of
from data_pipelines.video.streams import file_url, frame_rate, open_stream

if TYPE_CHECKING:
    import av

RGB, BT601, SWSCALE_BT601 = 0, 6, 5  # FFmpeg's numbers of colour matrices
LIMITED_RANGE = 1


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

    @property
    def encoding(self) -> str:
        """What the pixels of the copies depend on, such as "short_side 256, keyframe_every 16, crf 20"."""
        return f"short_side {self.short_side}, keyframe_every {self.keyframe_every}, crf {self.crf}"

    def target(self, path: str) -> Path:
        """Return the path of a video's copy."""
        relative = os.path.relpath(path, self.root)
        if relative.startswith(".."):  # outside root
            relative = os.path.abspath(path).lstrip("/")
        return (self.folder / relative).with_suffix(".mp4")


def copy_video(
    source: str, target: str, short_side: int, keyframe_every: int, crf: int, max_pixels: int | None = None
) -> None:
    """Write a copy atomically; upright, with the times and the colour space of the original. See `CopySettings`.

    Raises:
        VideoDecodeError: the source cannot be decoded to its end or encoded. Nothing is written.
        OSError: the copy cannot be written.
    """
    import av

    with (
        open_stream(source, max_pixels) as opened,
        atomic_write(target) as temporary,
        av.open(file_url(temporary), "w", format="mp4") as output,
    ):
        encoder: Any = None
        last_pts = -1
        for frame in opened.frames():
            with decode_errors("pyav"):
                if encoder is None:
                    size, orientation = _even_size(frame.width, frame.height, short_side), orientation_of(frame, source)
                image = _upright(_resize(frame, *size), orientation)
                if encoder is None:
                    encoder = _add_encoder(output, opened.stream, image, keyframe_every, crf)
                    _tag_colors(encoder, frame, opened.stream)
                # Old AVIs give some frames no time, or that of the previous frame.
                if frame.pts is not None and frame.pts > last_pts:
                    last_pts = frame.pts
                else:
                    last_pts += frame.duration or 1
                image.pts, image.time_base = last_pts, frame.time_base or opened.stream.time_base
                packets = encoder.encode(image)
            _write(output, packets)
        if encoder is None:
            raise VideoDecodeError("pyav: found no frame in the video stream")
        _write(output, encoder.encode())


def _write(output: Any, packets: Any) -> None:
    """Write packets. Only errors of the file system, such as a full disk, are not the video's fault."""
    try:
        output.mux(packets)
    except OSError:
        raise
    except Exception as error:
        raise VideoDecodeError(f"pyav: cannot write the copy ({first_line(error)})") from error


def _add_encoder(output: Any, source: av.VideoStream, image: av.VideoFrame, keyframe_every: int, crf: int) -> Any:
    """Add an H.264 stream with the clock of ``source`` to a container, for frames like ``image``."""
    encoder = output.add_stream("libx264", rate=frame_rate(source.average_rate, 0, None))
    encoder.width, encoder.height, encoder.pix_fmt = image.width, image.height, image.format.name
    encoder.time_base = source.time_base
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


def _tag_colors(encoder: Any, frame: av.VideoFrame, source: av.VideoStream) -> None:
    """Give a copy the colour matrix and range of its original, which no conversion then has to respect."""
    context, original = encoder.codec_context, source.codec_context
    is_rgb = frame.colorspace == RGB  # converted to the matrix and range that are usual
    context.colorspace = BT601 if is_rgb else int(frame.colorspace)
    context.color_range = LIMITED_RANGE if is_rgb else int(frame.color_range)
    context.color_primaries, context.color_trc = int(original.color_primaries), int(original.color_trc)


def _resize(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """Resize to 8 bits and 4:2:0. FFmpeg's formats yuvj are those that have the full range in any case."""
    pixels = "yuvj420p" if frame.format.name.startswith("yuvj") else "yuv420p"
    colors = {"dst_colorspace": SWSCALE_BT601, "dst_color_range": LIMITED_RANGE} if frame.colorspace == RGB else {}
    return frame.reformat(width, height, pixels, interpolation="AREA", **colors)


def _upright(frame: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
    """Turn the planes of a frame; the encoder chooses the type of the returned frame."""
    import av

    if orientation != UPRIGHT:
        stored, frame = frame, av.VideoFrame(*orientation.size(frame.width, frame.height), frame.format.name)
        for source, target in zip(stored.planes, frame.planes, strict=True):
            _pixels(target)[:] = orientation.apply(_pixels(source))
    frame.pict_type = 0  # it still has the type that it had in the source
    return frame


def _pixels(plane: Any) -> np.ndarray:
    """Return a view of a plane: uint8 (height, width)."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
