"""Decoding backends: decord, PyAV, torchcodec and images. Each opens one file.

Frame i is the i-th frame that decoding from the start yields, in display order, rotated upright, in the size of the
first frame. Pixels are those that are stored: the sample aspect ratio is not applied. If a file has several video
streams, every backend reads the one that FFmpeg considers the best, or refuses the file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data_pipelines.io.errors import DataError, VideoDecodeError, decode_errors, first_line
from data_pipelines.video.image_reader import ImageReader
from data_pipelines.video.orientation import UPRIGHT, orientation_of
from data_pipelines.video.seeking import SeekingReader
from data_pipelines.video.streams import (
    file_url,
    frame_rate,
    inspect_stream,
    open_stream,
    plausible_rate,
    stream_rate,
    to_rgb,
    upright_frames,
)

if TYPE_CHECKING:
    import av

CACHE_BYTES = 256 * 2**20  # maximum size of the decoded frames that PyAVReader keeps from its first pass
PACKAGES = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}


class Reader(Protocol):
    """A file opened by a backend. Opening and reading raise any type of error; see `GuardedReader`."""

    num_frames: int
    fps: Fraction

    def __init__(self, path: str, max_pixels: int | None = None) -> None: ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return the frames at ``indices``, which are unique and ascending: uint8 (len(indices), H, W, 3)."""

    def close(self) -> None:
        """Release the file."""


class DecordReader:
    """Reads with decord. It seeks exactly in closed groups of pictures only, and applies the display rotation."""

    def __init__(self, path: str, max_pixels: int | None = None) -> None:
        import decord

        # decord itself opens files of all formats, playlists included.
        traits = inspect_stream(path, max_pixels)
        if traits.num_streams > 1:
            raise VideoDecodeError(f"decord: found {traits.num_streams} video streams, expected one")
        _require_not_mirrored(traits.is_mirrored, "decord")
        decord.logging.set_level(decord.logging.QUIET)
        # With the default tolerance, decord silently replaces frames that it cannot decode.
        self._video: Any = decord.VideoReader(file_url(path), num_threads=1, fault_tol=1e-9)
        self.num_frames = len(self._video)
        first, last = self._video.get_frame_timestamp([0, self.num_frames - 1])[:, 0].tolist()
        self.fps = frame_rate(self._video.get_avg_fps(), self.num_frames, last - first)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        frames = self._video.get_batch(indices)
        # Other code in this process (pytorchvideo) may have set decord's global bridge to torch.
        return frames.asnumpy() if hasattr(frames, "asnumpy") else np.asarray(frames)

    def close(self) -> None:
        """Release the file."""
        self._video = None


class TorchcodecReader:
    """Reads with torchcodec, which needs the system's FFmpeg. It scans the file first to learn each frame's time."""

    def __init__(self, path: str, max_pixels: int | None = None) -> None:
        from torchcodec.decoders import VideoDecoder

        traits = inspect_stream(path, max_pixels)
        _require_not_mirrored(traits.is_mirrored, "torchcodec")
        self._video: Any = VideoDecoder(
            file_url(path),
            stream_index=traits.stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            seek_mode="exact",
        )
        self.num_frames = len(self._video)
        metadata = self._video.metadata
        self.fps = frame_rate(metadata.average_fps, self.num_frames, metadata.duration_seconds)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        return self._video.get_frames_at(indices.tolist()).data.numpy()

    def close(self) -> None:
        """Release the file."""
        self._video = None


class PyAVReader:
    """Reads with PyAV, always decoding from the first frame. This is the reference for the other backends.

    The first pass decodes all frames to count them, because the number in a container may be missing or wrong: it
    counts packets, which include those that an edit list removes, and one too many for packed B-frames. A short video,
    whose frames fit into `CACHE_BYTES`, is decoded only once.
    """

    def __init__(self, path: str, max_pixels: int | None = None) -> None:
        self._path, self._max_pixels = path, max_pixels
        self._cache: list[av.VideoFrame] | None = []
        self._pass: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._size, self._orientation = (0, 0), UPRIGHT
        self.num_frames = cached_bytes = 0
        times = []
        with open_stream(path, max_pixels) as opened:
            for frame in opened.frames():
                if not self.num_frames:  # other frames are rescaled to the size of the first one
                    self._size, self._orientation = (frame.width, frame.height), orientation_of(frame, path)
                self.num_frames += 1
                times.append(frame.time)
                cached_bytes += sum(plane.buffer_size for plane in frame.planes)
                if cached_bytes > CACHE_BYTES:
                    self._cache = None
                if self._cache is not None:
                    self._cache.append(frame)
            self.fps = stream_rate(opened.stream, times)
        if not self.num_frames:
            raise VideoDecodeError("pyav: found no frame in the video stream")
        self._next = self.num_frames  # index of the next frame of self._pass

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`. A long file is decoded again; calls with ascending indices share one pass."""
        width, height = self._orientation.size(*self._size)
        frames = np.empty((len(indices), height, width, 3), dtype=np.uint8)
        for position, frame in enumerate(self._frames_at(indices)):
            frames[position] = self._orientation.apply(to_rgb(frame, *self._size))
        return frames

    def close(self) -> None:
        """Release the frames and the file."""
        self._cache, self._pass = None, iter(())

    def _frames_at(self, indices: np.ndarray) -> Iterator[av.VideoFrame]:
        if self._cache is not None:
            yield from (self._cache[index] for index in indices)
            return
        if indices[0] < self._next:
            self._pass, self._next = self._decode(), 0
        for index in indices:
            for position, frame in self._pass:
                self._next = position + 1
                if position == index:
                    yield frame
                    break
            else:
                raise VideoDecodeError(f"pyav: the stream ends before frame {index}")

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        with open_stream(self._path, self._max_pixels) as opened:
            yield from enumerate(opened.frames())


class SequentialReader:
    """Reads every frame of a file once, in order, with PyAV. The number of frames is only known at the end.

    Attributes:
        fps: the frame rate that the file states; None if there is none, or it cannot be right.
        seconds: the duration that the file states, which may be wrong; None if there is none.

    Raises:
        VideoDecodeError: the file cannot be opened.
    """

    def __init__(self, path: str, max_pixels: int | None = None) -> None:
        self._open = ExitStack()
        opened = self._open.enter_context(open_stream(path, max_pixels))
        duration = opened.container.duration  # microseconds
        self.seconds = duration / 1e6 if duration else None
        self.fps = plausible_rate(opened.stream.average_rate or opened.stream.guessed_rate)
        self._frames = upright_frames(opened.frames(), path)

    def read(self, count: int) -> np.ndarray:
        """The next ``count`` frames, uint8 (count, H, W, 3); fewer at the end, and none after it.

        Raises:
            VideoDecodeError: they cannot be decoded.
        """
        with decode_errors("pyav"):
            frames = list(islice(self._frames, count))
            return np.stack(frames) if frames else np.empty((0, 1, 1, 3), np.uint8)

    def close(self) -> None:
        """Release the file."""
        self._open.close()


READERS: dict[str, type[Reader]] = {
    "seek": SeekingReader,
    "decord": DecordReader,
    "pyav": PyAVReader,
    "torchcodec": TorchcodecReader,
    "images": ImageReader,
}


class GuardedReader:
    """A file opened by the named backend, where every failure is a VideoDecodeError; the `Reader` that callers use."""

    def __init__(self, backend: str, path: str, max_pixels: int | None = None) -> None:
        self._backend = backend
        with decode_errors(backend):
            self._reader = READERS[backend](path, max_pixels)
        self.num_frames, self.fps = self._reader.num_frames, self._reader.fps

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        with decode_errors(self._backend):
            frames = self._reader.read(indices)
            if frames.ndim != 4 or len(frames) != len(indices) or frames.shape[-1] != 3:
                # Known of decord for frames that are 1, 2 or 16 pixels wide.
                expected = f"({len(indices)}, height, width, 3)"
                raise VideoDecodeError(f"{self._backend}: found frames of shape {frames.shape}, expected {expected}")
            return frames

    def close(self) -> None:
        """Release the file."""
        with decode_errors(self._backend):
            self._reader.close()


def require_backend(name: str) -> None:
    """Check that the package of a backend can be imported; any package suffices for "auto".

    Raises:
        DataError: the package cannot be imported.
    """
    if name not in PACKAGES:
        return
    package = PACKAGES[name]
    try:
        importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec without FFmpeg's libraries: RuntimeError
        raise DataError(
            f"backend {name!r}: cannot import {package} ({first_line(error)}); run pip install {package}, or use "
            "backend 'auto'"
        ) from None


def _require_not_mirrored(is_mirrored: bool, backend: str) -> None:
    if is_mirrored:
        raise VideoDecodeError(f"{backend}: found a mirrored display matrix, which only PyAV applies")
