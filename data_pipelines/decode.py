"""Frames out of a video file, with decord or PyAV.

The truth is what decoding the file from its first frame on yields, in display order. decord jumps to the
key frame before the one asked for, which saves decoding but is only exact where every group of pictures is
closed and time-stamped; elsewhere (open groups of pictures, AVI, ASF, MPEG-TS, ...) decord 0.6 returns
other frames without a word. "auto" therefore uses decord where its jumps are exact and PyAV, decoding from
the start, for all other files and for those decord fails on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data_pipelines.errors import DataError, MissingDataError, VideoDecodeError

if TYPE_CHECKING:
    import av

BACKENDS = ("auto", "decord", "pyav")
DEFAULT_FPS = Fraction(25)  # for streams that state no frame rate: it names moments in seconds, nothing else


class _Reader(Protocol):
    """One file opened by one backend. Failing to open or to read raises VideoDecodeError."""

    num_frames: int
    fps: Fraction

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Frames uint8 (len(indices), H, W, 3) at ``indices``, which are unique and ascending."""

    def close(self) -> None: ...


class VideoReader:
    """An open video; made by `open_video`.

    Attributes:
        num_frames: how many frames the file holds.
        fps: average frame rate, exact.
    """

    num_frames: int
    fps: Fraction

    def __init__(self, path: str | os.PathLike[str], backend: str = "auto") -> None:
        self.path = os.fspath(path)
        _check_file(self.path)
        self._waiting = _backends(self.path, backend)
        self._failures: list[str] = []
        self._reader = self._open_next()
        self.num_frames, self.fps = self._reader.num_frames, self._reader.fps

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames at ``indices`` (any order, repeats allowed; each frame is decoded once): uint8 (T, H, W, 3).

        Raises:
            DataError: an index outside [0, num_frames).
            VideoDecodeError: no backend can decode these frames.
        """
        unique, inverse = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if not len(unique) or unique[0] < 0 or unique[-1] >= self.num_frames:
            asked = f"frames {unique[0]} to {unique[-1]}" if len(unique) else "no frame at all"
            raise DataError(
                f"{self.path}: {asked} asked for, but the video has frames 0 to {self.num_frames - 1}"
            )
        while True:
            try:
                return self._reader.read(unique)[inverse]
            except VideoDecodeError as error:
                self._failures.append(str(error))
                self.close()
                self._reader = self._open_next()

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def _open_next(self) -> _Reader:
        while self._waiting:
            try:
                return _READERS[self._waiting.pop(0)](self.path)
            except VideoDecodeError as error:
                self._failures.append(str(error))
        raise VideoDecodeError(f"{self.path}: cannot be decoded; " + "; ".join(self._failures))


@contextmanager
def open_video(path: str | os.PathLike[str], backend: str = "auto") -> Iterator[VideoReader]:
    """Open a video for the length of a ``with`` block, where it is used: a reader must not cross a fork.

    Args:
        path: a video file.
        backend: "decord", "pyav", or "auto" (see the module's docstring). One decoding thread each.

    Raises:
        MissingDataError: no such file.
        VideoDecodeError: no backend can read it; the message says what each one found.
    """
    reader = VideoReader(path, backend)
    try:
        yield reader
    finally:
        reader.close()


def read_frames(path: str | os.PathLike[str], indices: Sequence[int], backend: str = "auto") -> np.ndarray:
    """Frames of ``path`` at ``indices``, uint8 (T, H, W, 3) RGB. See `open_video` and `VideoReader.read`."""
    with open_video(path, backend) as video:
        return video.read(indices)


def _check_file(path: str) -> None:
    if not os.path.isfile(path):
        raise MissingDataError(f"{path}: no such video file")
    if os.path.getsize(path) == 0:
        raise VideoDecodeError(f"{path}: cannot be decoded; the file is empty (0 bytes)")


def _backends(path: str, backend: str) -> list[str]:
    """Which backends to try, in order."""
    if backend not in BACKENDS:
        raise DataError(f"backend: {backend!r} is none of {', '.join(BACKENDS)}")
    if backend != "auto":
        return [backend]
    return ["decord", "pyav"] if _jumps_are_exact(path) else ["pyav"]


def _jumps_are_exact(path: str) -> bool:
    """Whether decoding may begin at any key frame and still number the frames rightly.

    Looks at the packets alone (milliseconds): all must be shown and time-stamped, and none that follows a key
    frame in the file may precede it on screen, as the leading pictures of an open group do.
    """
    try:
        with _open_stream(path) as (container, stream):
            if not {"mp4", "matroska"} & set(container.format.name.split(",")):
                return False
            key_time = None
            for packet in container.demux(stream):
                if packet.size == 0:  # the flush at the end
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


class _DecordReader:
    """decord: exact where groups of pictures are closed; applies the display rotation."""

    def __init__(self, path: str) -> None:
        with _decord_errors():
            import decord

            decord.logging.set_level(decord.logging.QUIET)
            # As good as no tolerance: else frames that cannot be decoded are silently replaced by others.
            self._video = decord.VideoReader(path, num_threads=1, fault_tol=1e-9)
            self.num_frames = len(self._video)
            self.fps = _frame_rate(self._video.get_avg_fps())

    def read(self, indices: np.ndarray) -> np.ndarray:
        with _decord_errors():
            frames = self._video.get_batch(indices).asnumpy()
        if frames.ndim != 4 or frames.shape[-1] != 3:  # seen on frames 1, 2 or 16 pixels wide
            raise VideoDecodeError(f"decord: frames of shape {frames.shape[1:]}, not (height, width, 3)")
        return frames

    def close(self) -> None:
        self._video = None


class _PyAVReader:
    """PyAV, always decoding from the first frame on."""

    def __init__(self, path: str) -> None:
        self._path = path
        with _open_stream(path) as (container, stream):
            self.fps = _frame_rate(stream.average_rate or stream.guessed_rate)
            # Counted by decoding: containers count packets, which is one too many for packed B-frames and
            # includes what an edit list cuts away; many state no number at all.
            self.num_frames = sum(1 for _ in container.decode(stream))
        if not self.num_frames:
            raise VideoDecodeError("pyav: the video stream has no frame")

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `_Reader`; a second pass over the file, up to the last frame wanted."""
        wanted = set(indices.tolist())
        frames: list[np.ndarray] = []
        with _open_stream(self._path) as (container, stream):
            for index, frame in enumerate(container.decode(stream)):
                if index == 0:
                    width, height = frame.width, frame.height  # a stream may change its size; the first frame's holds
                if index in wanted:
                    picture = frame.to_ndarray(format="rgb24", width=width, height=height)
                    frames.append(np.rot90(picture, frame.rotation // 90))  # counter-clockwise
                    if len(frames) == len(wanted):
                        break
        if len(frames) < len(wanted):
            raise VideoDecodeError(f"pyav: the stream ends before frame {indices[len(frames)]}")
        return np.stack(frames)

    def close(self) -> None:
        """Nothing is kept open between reads."""


_READERS: dict[str, type[_DecordReader] | type[_PyAVReader]] = {"decord": _DecordReader, "pyav": _PyAVReader}


@contextmanager
def _decord_errors() -> Iterator[None]:
    """decord's failures as VideoDecodeError. Its own derive from Exception alone: known by their module."""
    try:
        yield
    except Exception as error:
        expected = isinstance(error, ImportError | OSError | RuntimeError | AssertionError | StopIteration)
        if not expected and not type(error).__module__.startswith("decord"):
            raise
        raise VideoDecodeError(f"decord: {_first_line(error)}") from error


@contextmanager
def _open_stream(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its best video stream; failures inside the block, too, become VideoDecodeError."""
    try:
        import av
    except ImportError as error:
        raise VideoDecodeError(f"pyav: {_first_line(error)}") from error
    av.logging.set_level(av.logging.PANIC)
    try:
        # Old AVIs have tags in no valid encoding; they are of no interest here.
        with av.open(path, metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise VideoDecodeError("pyav: the file has no video stream")
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.FFmpegError as error:
        raise VideoDecodeError(f"pyav: {_first_line(error)}") from error


def _frame_rate(rate: Any) -> Fraction:
    """Frames per second as an exact fraction (29.97002997 -> 30000/1001)."""
    if not rate or not math.isfinite(rate) or rate < 0:
        return DEFAULT_FPS
    return Fraction(rate).limit_denominator(10_000)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
