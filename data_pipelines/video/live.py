"""Open a source of frames that may never end: a camera, an address of a network, a pipe or a file.

Unlike everything else that reads videos, this decodes in the calling process, without a time limit for a frame of a
pipe, which may pause.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.io.errors import DataError, VideoDecodeError, decode_errors
from data_pipelines.video.streams import (
    FORMATS,
    MAX_PIXELS,
    OpenStream,
    best_stream,
    file_url,
    frame_rate,
    plausible_rate,
    upright_frames,
)

if TYPE_CHECKING:
    import av

PIPE = "-"
PROTOCOLS = "rtsp,rtsps,rtmp,rtmps,http,https,rtp,srtp,udp,tcp,tls,srt,crypto"
ADDRESS = re.compile(rf"(?:{PROTOCOLS.replace(',', '|')})://", re.IGNORECASE)
TIMEOUT = 15.0  # seconds until a network has opened, and between two of its packets
FRAMES_FOR_RATE = 32  # whose times determine a rate that is not stated


@dataclass(frozen=True)
class LiveSource:
    """An open source.

    Attributes:
        fps: its frame rate.
        frames: RGB, uint8 (H, W, 3), upright. Raises VideoDecodeError where the source fails.
    """

    fps: Fraction
    frames: Iterator[np.ndarray]


@contextmanager
def open_live(source: str) -> Iterator[LiveSource]:
    """Open a source for a ``with`` block.

    Args:
        source: a camera, such as ``/dev/video0``; an address, such as ``rtsp://...``; ``-`` for a container or YUV4MPEG
            on standard input; or a video file.

    Raises:
        DataError: the source cannot be opened. The message starts with its name.
    """
    try:
        with decode_errors("pyav"):
            container = _open_container(source)
    except VideoDecodeError as error:
        raise _error(source, str(error)) from None
    with container:
        try:
            with decode_errors("pyav"):
                stream = best_stream(container, MAX_PIXELS)
            decoded = OpenStream(container, stream, MAX_PIXELS).frames()
            fps, decoded = _rate(stream, decoded)
        except VideoDecodeError as error:
            raise _error(source, str(error)) from None
        yield LiveSource(fps, upright_frames(decoded, source))


def _open_container(source: str) -> av.container.InputContainer:
    import av

    av.logging.set_level(av.logging.PANIC)
    options: dict[str, Any] = {"format_whitelist": FORMATS}
    if source == PIPE:
        if sys.stdin.isatty():
            raise VideoDecodeError("found a terminal on standard input, expected a video")
        return av.open("pipe:0", options={**options, "protocol_whitelist": "pipe"}, metadata_errors="ignore")
    if ADDRESS.match(source):
        options = {"format_whitelist": f"{FORMATS},rtsp,rtp,sdp,mpjpeg", "rtsp_flags": "prefer_tcp"}
        return av.open(source, options={**options, "protocol_whitelist": PROTOCOLS}, timeout=TIMEOUT)
    if not os.path.exists(source):
        raise VideoDecodeError("found no such file or device")
    if stat.S_ISCHR(os.stat(source).st_mode):
        return av.open(source, format="v4l2", timeout=TIMEOUT)
    return av.open(file_url(source), options={**options, "protocol_whitelist": "file"}, metadata_errors="ignore")


def _rate(stream: av.VideoStream, frames: Iterator[av.VideoFrame]) -> tuple[Fraction, Iterator[av.VideoFrame]]:
    """The frame rate, and all frames again."""
    if rate := plausible_rate(stream.average_rate or stream.guessed_rate):
        return rate, frames
    first = list(islice(frames, FRAMES_FOR_RATE))
    times = [frame.time for frame in first if frame.time is not None]
    rest: Iterable[av.VideoFrame] = chain(first, frames)
    return frame_rate(None, len(times), times[-1] - times[0] if times else None), iter(rest)


def source_name(source: str) -> str:
    """How messages name a source."""
    return "standard input" if source == PIPE else source


def _error(source: str, reason: str) -> DataError:
    return DataError(
        f"{source_name(source)}: cannot be opened ({reason}); expected a camera such as /dev/video0, an address such "
        "as rtsp://HOST, a video file, or - for a video on standard input"
    )
