"""Video streams of files, opened with PyAV: which files are opened, frame rates, and whether seeking is exact.

All files are opened here, as FFmpeg would otherwise interpret names with a colon as addresses of a network, and would
follow references of playlists to other files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from data_pipelines.io.errors import VideoDecodeError, decode_errors
from data_pipelines.video.orientation import UPRIGHT, orientation_of

if TYPE_CHECKING:
    import av

DEFAULT_FPS = Fraction(25)  # for streams without a frame rate; only converts frame numbers to seconds
SWSCALE_BT601 = 5
MAX_FPS = 480  # higher rates are assumed to be the tick rate of the container's clock
MAX_PIXELS = 2**24  # of a frame, twice 4K; a decoder holds up to 17 frames, and a clip more
PADDING = 2**20  # pixels that a decoder may add to a frame
SEEKABLE_FORMATS = {"mp4", "matroska"}
# Demuxers of files that contain their frames. Others (concat, hls, dash, image2, ...) open further files or devices.
FORMATS = (
    "mov,matroska,avi,asf,mpegts,mpeg,mpegvideo,flv,ogg,gif,m4v,h264,hevc,h263,h261,vvc,av1,obu,ivf,vc1,dv,mxf,rm,nut,"
    "wtv,apng,yuv4mpegpipe,mjpeg"
)


@dataclass(frozen=True)
class OpenStream:
    """The video stream of an open file.

    Attributes:
        container, stream: PyAV's objects.
        max_pixels: largest frame.
    """

    container: av.container.InputContainer
    stream: av.VideoStream
    max_pixels: int

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decode from the start, in display order; every failure is a VideoDecodeError."""
        with decode_errors("pyav"):
            for frame in self.container.decode(self.stream):
                require_size(frame.width, frame.height, self.max_pixels)  # it may change
                yield frame


@contextmanager
def open_stream(path: str, max_pixels: int | None = None) -> Iterator[OpenStream]:
    """Open the video stream that FFmpeg considers the best, for decoding with one thread.

    Args:
        path: a regular file.
        max_pixels: largest frame; None is `MAX_PIXELS`.

    Raises:
        VideoDecodeError: the file cannot be opened, has no video stream, or has larger frames.
    """
    max_pixels = max_pixels or MAX_PIXELS
    with decode_errors("pyav"):
        container = _open_container(path)
    with container:
        with decode_errors("pyav"):
            stream = best_stream(container, max_pixels)
        yield OpenStream(container, stream, max_pixels)


def _open_container(path: str) -> av.container.InputContainer:
    import av

    av.logging.set_level(av.logging.PANIC)
    if not os.path.isfile(path):  # a pipe could block
        raise VideoDecodeError("pyav: found no regular file")
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    # Old AVIs contain tags that are not valid in any encoding. The tags are not used.
    return av.open(file_url(path), options=options, metadata_errors="ignore")


def best_stream(container: av.container.InputContainer, max_pixels: int) -> av.VideoStream:
    """The video stream that FFmpeg considers the best, prepared for decoding with one thread; see `open_stream`."""
    stream = cast("av.VideoStream | None", container.streams.best("video"))
    if stream is None:
        raise VideoDecodeError("pyav: found no video stream")
    context = cast("av.VideoCodecContext | None", stream.codec_context)
    if context is None:
        raise VideoDecodeError("pyav: found a video stream of a codec that FFmpeg cannot decode")
    require_size(context.width, context.height, max_pixels)
    context.options = {"max_pixels": str(2 * max_pixels + PADDING)}  # before a larger frame is allocated
    context.thread_count = 1
    return stream


def require_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise VideoDecodeError(
            f"pyav: found frames of {width} x {height} pixels, expected at most {max_pixels} in total"
        )


def file_url(path: str | os.PathLike[str]) -> str:
    """Return how FFmpeg must be given a path: it takes ``12:30.mp4`` for a file ``30.mp4`` of a protocol ``12``."""
    return f"file:{os.path.abspath(path)}"


class StreamTraits(NamedTuple):
    """What determines which backends read a file as PyAV does.

    Attributes:
        stream_index: index of the video stream that is read.
        num_streams: number of video streams, without cover images.
        is_mirrored: whether frames are shown mirrored.
        is_seekable: whether decord decodes the file exactly when it seeks to a key frame.
    """

    stream_index: int
    num_streams: int
    is_mirrored: bool
    is_seekable: bool


def inspect_stream(path: str, max_pixels: int | None = None) -> StreamTraits:
    """Read all packets and decode the first frame, which takes milliseconds. See `open_stream`."""
    with decode_errors("pyav"):
        status = os.stat(path)
    return _inspect_stream(path, max_pixels, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=8)  # both the choice of the backends and the backend that is chosen ask
def _inspect_stream(path: str, max_pixels: int | None, stamp: tuple[int, int, int]) -> StreamTraits:
    with open_stream(path, max_pixels) as opened, decode_errors("pyav"):
        first_frame, index = index_packets(opened)
        is_mirrored = first_frame is not None and orientation_of(first_frame, path).is_mirrored
        num_streams = sum(not _is_cover(stream) for stream in opened.container.streams.video)
        pixels = opened.stream.codec_context.format
        # With more than 8 bits per colour, decord's values differ from FFmpeg's.
        has_8_bits = pixels is not None and max(component.bits for component in pixels.components) <= 8
        is_readable = first_frame is not None and num_streams == 1 and not is_mirrored and has_8_bits
        return StreamTraits(opened.stream.index, num_streams, is_mirrored, index is not None and is_readable)


class PacketIndex(NamedTuple):
    """When the frames of a stream are shown, in its time base.

    Attributes:
        times: of all frames, ascending.
        key_times: of the key frames, ascending.
    """

    times: list[int]
    key_times: list[int]


def index_packets(opened: OpenStream) -> tuple[av.VideoFrame | None, PacketIndex | None]:
    """Read all packets. Return the first frame, and the index if decoding may begin at any key frame.

    This requires that all packets are shown and time-stamped, and that after a key frame in the file, no packet is
    shown before it, unlike the leading frames of an open group of pictures. Of incomplete files, decoders find
    different numbers of frames. The first frame is None if it cannot be decoded.
    """
    is_seekable = not SEEKABLE_FORMATS.isdisjoint(opened.container.format.name.split(","))
    first_frame: av.VideoFrame | None = None
    times: list[int] = []
    key_times: list[int] = []
    for packet in opened.container.demux(opened.stream):
        if first_frame is None:
            first_frame = next(iter(opened.stream.decode(packet)), None)
        elif not is_seekable:
            break
        if packet.size == 0:  # marks the end of the stream
            continue
        time = packet.pts
        if time is None or packet.is_discard or packet.is_corrupt:
            is_seekable = False
            continue
        if packet.is_keyframe:
            key_times.append(time)
        if not key_times or time < key_times[-1]:
            is_seekable = False
        times.append(time)
    is_complete = opened.stream.frames in (0, len(times))  # 0: the container does not state the number
    index = PacketIndex(sorted(times), sorted(key_times))
    is_exact = is_seekable and is_complete and key_times and len(set(times)) == len(times)
    return first_frame, index if is_exact else None


def _is_cover(stream: av.VideoStream) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def seeking_is_exact(path: str, max_pixels: int | None = None) -> bool:
    """Return whether decord decodes this file exactly when it seeks to a key frame; False if it cannot be opened."""
    try:
        return inspect_stream(path, max_pixels).is_seekable
    except VideoDecodeError:
        return False


def stream_rate(stream: av.VideoStream, times: Sequence[float | None]) -> Fraction:
    """Return the frame rate of a stream whose frames are shown at ``times`` (seconds; None where unknown)."""
    known = [time for time in times if time is not None]
    duration = max(known) - min(known) if known else 0.0
    return frame_rate(stream.average_rate or stream.guessed_rate, len(times), duration)


def plausible_rate(stated: Any) -> Fraction | None:
    """Return a stated frame rate as a fraction (29.97002997 -> 30000/1001), or None if it cannot be right."""
    if stated and math.isfinite(stated) and 0 < stated <= MAX_FPS:
        return Fraction(stated).limit_denominator(10_000)
    return None


def frame_rate(stated: Any, num_frames: int, duration: float | None) -> Fraction:
    """Return frames per second as a fraction.

    Args:
        stated: the rate that the file states, or None. Matroska with a variable frame rate states 1000.
        num_frames: number of frames.
        duration: seconds from the first frame to the last; determines the rate if the stated one is not plausible.
    """
    if rate := plausible_rate(stated):
        return rate
    if duration and num_frames > 1:
        return Fraction((num_frames - 1) / duration).limit_denominator(10_000)
    return DEFAULT_FPS


def upright_frames(frames: Iterable[av.VideoFrame], path: str) -> Iterator[np.ndarray]:
    """Yield RGB frames, uint8 (H, W, 3), turned upright, in the size of the first one.

    Args:
        frames: of `OpenStream.frames`.
        path: start of warnings.
    """
    size, orientation = (0, 0), UPRIGHT
    for index, frame in enumerate(frames):
        if not index:
            size, orientation = (frame.width, frame.height), orientation_of(frame, path)
        yield orientation.apply(to_rgb(frame, *size))


@cache
def _one_thread() -> dict[str, Any]:
    """From version 17 on, PyAV starts threads for every conversion by default, which takes longer than a small one."""
    import av

    return {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}


def to_rgb(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Convert a frame to uint8 RGB (height, width, 3), with its own colour matrix and range.

    PyAV before 17 does that only if the destination's are stated and differ. RGB has neither.
    """
    colors: dict[str, Any] = {"src_colorspace": int(frame.colorspace), "src_color_range": int(frame.color_range)}
    return frame.to_ndarray(
        format="rgb24", width=width, height=height, dst_colorspace=SWSCALE_BT601, **colors, **_one_thread()
    )
