"""Random access with PyAV: seek to a key frame, then decode only the packets that the requested frames need.

It reads files of which decord and PyAV give the same pixels, and all others that PyAV alone reads correctly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.orientation import orientation_of
from data_pipelines.video.streams import frame_rate, index_packets, open_stream, require_size, to_rgb

if TYPE_CHECKING:
    import av

# swscale and decord's filters differ in 4:2:0 with an odd number of rows, interlaced frames and unusual formats.
PLANAR_8_BITS = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"}
MAX_FRAMES_INSTEAD_OF_SEEKING = 4
SLICES, SUPPLEMENTS = range(1, 6), (6, 9, 12)  # types of H.264's units; supplements: SEI, delimiter, filler


class SeekingReader:
    """Reads with PyAV from the key frame before a clip. Packets on which no requested frame depends are not decoded.

    The frames are those of `data_pipelines.video.backends.PyAVReader`. Files in which it could not find them are
    refused, and so are those whose pixels decord converts in another way.
    """

    def __init__(self, path: str, max_pixels: int | None = None) -> None:
        with ExitStack() as stack:
            self._opened = stack.enter_context(open_stream(path, max_pixels))
            first_frame, index = index_packets(self._opened)
            if first_frame is None or index is None:
                raise VideoDecodeError("seek: found frames that only decoding from the start finds")
            self._kind = _kind(first_frame)
            self._orientation = orientation_of(first_frame, path)
            self._times, self._key_times = index.times, index.key_times
            stream = self._opened.stream
            self.num_frames = len(self._times)
            duration = float((self._times[-1] - self._times[0]) * (stream.time_base or 1))
            self.fps = frame_rate(stream.average_rate or stream.guessed_rate, self.num_frames, duration)
            self._length_size = _length_size(stream.codec_context)
            self._open = stack.pop_all()
        self._pass: Iterator[av.VideoFrame] = iter(())
        self._position: int | None = None  # time of the last frame that was taken from self._pass
        self._needed: set[int] = set()  # times of the frames that are being read
        self._last_needed = 0

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `data_pipelines.video.backends.Reader`. Calls with ascending indices share a pass."""
        width, height = self._kind[:2]
        columns, rows = self._orientation.size(width, height)
        frames = np.empty((len(indices), rows, columns, 3), dtype=np.uint8)
        for position, frame in enumerate(self._frames_at([self._times[index] for index in indices])):
            frames[position] = self._orientation.apply(to_rgb(frame, width, height))
        return frames

    def close(self) -> None:
        """Release the file."""
        self._pass = iter(())
        self._open.close()

    def _frames_at(self, times: list[int]) -> Iterator[av.VideoFrame]:
        self._needed, self._last_needed = set(times), times[-1]
        for time in times:
            if not self._is_ahead(time):
                self._pass = self._decode_from(self._key_times[bisect_right(self._key_times, time) - 1])
            for frame in self._pass:
                if frame.pts is None or frame.pts >= time:
                    break
            else:
                raise VideoDecodeError(f"seek: the stream ends before the frame at time {time}")
            if frame.pts != time or _kind(frame) != self._kind:
                raise VideoDecodeError(f"seek: found another frame than expected at time {time}")
            self._position = time
            yield frame

    def _is_ahead(self, time: int) -> bool:
        """Whether the current pass reaches a frame sooner than a seek would."""
        if self._position is None or self._position >= time:
            return False
        key_frames_between = bisect_right(self._key_times, time) - bisect_right(self._key_times, self._position)
        frames_between = bisect_right(self._times, time) - bisect_right(self._times, self._position)
        return key_frames_between == 0 or frames_between <= MAX_FRAMES_INSTEAD_OF_SEEKING

    def _decode_from(self, key_time: int) -> Iterator[av.VideoFrame]:
        self._position = None
        container, stream = self._opened.container, self._opened.stream
        container.seek(key_time, stream=stream)
        packets = container.demux(stream)
        first = next(packets)
        if first.pts != key_time or not first.is_keyframe:
            raise VideoDecodeError(f"seek: found no key frame at time {key_time}")
        for packet in chain([first], packets):
            if self._is_needed(packet):
                for frame in stream.decode(packet):
                    require_size(frame.width, frame.height, self._opened.max_pixels)
                    yield frame

    def _is_needed(self, packet: av.Packet) -> bool:
        """Whether a packet must be decoded. One after all needed frames may be needed by the next read."""
        if packet.pts is None or packet.pts in self._needed or packet.pts > self._last_needed:
            return True
        return not (self._length_size and is_disposable(memoryview(packet), self._length_size))


def is_disposable(packet: memoryview, length_size: int) -> bool:
    """Whether no other frame is predicted from an H.264 picture (its nal_ref_idc is 0; H.264, 7.4.1).

    Args:
        packet: units, each after its length.
        length_size: bytes of a length.
    """
    offset, has_slices = 0, False
    while offset + length_size < len(packet):
        start = offset + length_size
        header = packet[start]
        if header & 0x1F in SLICES:
            if header & 0x60:
                return False
            has_slices = True
        elif header & 0x1F not in SUPPLEMENTS:
            return False
        offset = start + int.from_bytes(packet[offset:start], "big")
    return has_slices and offset == len(packet)


def _length_size(codec: Any) -> int:
    """Bytes of the lengths in an H.264 stream's packets (ISO/IEC 14496-15, 5.3.3.1); 0 of other streams."""
    configuration = codec.extradata or b""
    is_h264 = codec.name == "h264" and len(configuration) > 4 and configuration[0] == 1
    return (configuration[4] & 3) + 1 if is_h264 else 0


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    """The properties that all frames share: width, height and format; raises for a kind that is refused."""
    pixels = frame.format
    has_8_bits = max(component.bits for component in pixels.components) <= 8
    is_cut = frame.height % 2 and pixels.name.endswith("420p")
    if frame.interlaced_frame or (has_8_bits and (is_cut or pixels.name not in PLANAR_8_BITS)):
        raise VideoDecodeError(f"seek: found {pixels.name}, {frame.width} x {frame.height}, which decord reads")
    return frame.width, frame.height, pixels.name
