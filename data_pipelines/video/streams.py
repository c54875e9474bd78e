"""Video streams of files, opened with PyAV: frame rates, and whether seeking is exact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from data_pipelines.io.errors import VideoDecodeError, first_line

if TYPE_CHECKING:
    import av

DEFAULT_FPS = Fraction(25)  # for streams without a frame rate; only converts frame numbers to seconds
MAX_FPS = 480  # higher stated rates are taken for the tick rate of a container's clock
SEEKABLE_FORMATS = {"mp4", "matroska"}


@contextmanager
def open_stream(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and the video stream that FFmpeg considers the best, for decoding with one thread.

    Raises:
        VideoDecodeError: PyAV fails to open the file, or fails inside the block.
    """
    try:
        import av
    except ImportError as error:
        raise VideoDecodeError(f"pyav: {first_line(error)}") from error
    av.logging.set_level(av.logging.PANIC)
    try:
        # Old AVIs have tags in no valid encoding. The tags are not used.
        with av.open(path, metadata_errors="ignore") as container:
            if container.format.name == "tty":
                raise VideoDecodeError("pyav: found a text file, which FFmpeg would render as a terminal")
            stream = cast("av.VideoStream | None", container.streams.best("video"))
            if stream is None:
                raise VideoDecodeError("pyav: found no video stream")
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.FFmpegError as error:
        log: Any = error.log  # (level, source, text) or None
        detail = f" ({log[1]}: {log[2].strip()})" if log else ""
        raise VideoDecodeError(f"pyav: {error.strerror or first_line(error)}{detail}") from error


def seeking_is_exact(path: str) -> bool:
    """Return whether decord decodes this file exactly when it seeks to a key frame.

    Reads the packets without decoding them (milliseconds). Requires that all packets are shown and time-stamped, and
    that no packet after a key frame in the file precedes it on screen, as the leading frames of an open group of
    pictures do. Excludes more than 8 bits per colour, for which decord's values differ from FFmpeg's.
    """
    try:
        with open_stream(path) as (container, stream):
            pixels = stream.codec_context.format
            if pixels is None or max(component.bits for component in pixels.components) > 8:
                return False
            if not SEEKABLE_FORMATS & set(container.format.name.split(",")):
                return False
            key_time = None
            for packet in container.demux(stream):
                if packet.size == 0:  # marks the end of the stream
                    continue
                if packet.pts is None or packet.is_discard:
                    return False
                if packet.is_keyframe:
                    key_time = packet.pts
                elif key_time is None or packet.pts < key_time:
                    return False
            return key_time is not None
    except VideoDecodeError:
        return False


def stream_rate(stream: av.VideoStream, times: Sequence[float | None]) -> Fraction:
    """Return the frame rate of a stream whose frames are shown at ``times`` (seconds; None where unknown)."""
    known = [time for time in times if time is not None]
    duration = max(known) - min(known) if known else 0.0
    return frame_rate(stream.average_rate or stream.guessed_rate, len(times), duration)


def frame_rate(stated: Any, num_frames: int, duration: float | None) -> Fraction:
    """Return frames per second as a fraction (29.97002997 -> 30000/1001).

    Args:
        stated: the rate that the file states, or None. Matroska with a variable frame rate states 1000.
        num_frames: number of frames.
        duration: seconds from the first frame to the last; determines the rate if the stated one is not plausible.
    """
    if stated and math.isfinite(stated) and 0 < stated <= MAX_FPS:
        return Fraction(stated).limit_denominator(10_000)
    if duration and num_frames > 1:
        return Fraction((num_frames - 1) / duration).limit_denominator(10_000)
    return DEFAULT_FPS
