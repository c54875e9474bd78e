"""Decoding backends: decord, PyAV, torchcodec and images. Each opens one file.

Frame i is the i-th frame that decoding from the start yields, in display order, rotated upright, in the size of the
first frame. If a file has several video streams, every backend reads the one that FFmpeg considers the best.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data_pipelines.io.errors import DataError, VideoDecodeError, first_line
from data_pipelines.video.image_reader import ImageReader
from data_pipelines.video.streams import frame_rate, open_stream, stream_rate

if TYPE_CHECKING:
    import av

CACHE_BYTES = 256 * 2**20  # maximum size of the decoded frames that PyAVReader keeps from its first pass
PACKAGES = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}


class Reader(Protocol):
    """A file opened by a backend. ``Reader(path)`` and ``read`` raise VideoDecodeError."""

    num_frames: int
    fps: Fraction

    def __init__(self, path: str) -> None: ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return the frames at ``indices``, which are unique and ascending: uint8 (len(indices), H, W, 3)."""

    def close(self) -> None:
        """Release the file."""


class DecordReader:
    """Reads with decord. It seeks exactly in closed groups of pictures only, and applies the display rotation."""

    def __init__(self, path: str) -> None:
        with _library_errors("decord"):
            import decord

            decord.logging.set_level(decord.logging.QUIET)
            # With the default tolerance, decord silently replaces frames that it cannot decode.
            self._video: Any = decord.VideoReader(path, num_threads=1, fault_tol=1e-9)
            self.num_frames = len(self._video)
            first, last = self._video.get_frame_timestamp([0, self.num_frames - 1])[:, 0].tolist()
            self.fps = frame_rate(self._video.get_avg_fps(), self.num_frames, last - first)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        with _library_errors("decord"):
            frames = self._video.get_batch(indices)
            # Other code in this process (pytorchvideo) may have set decord's global bridge to torch.
            frames = frames.asnumpy() if hasattr(frames, "asnumpy") else np.asarray(frames)
        return _require_rgb(frames, "decord")  # fails for some frames that are 1, 2 or 16 pixels wide

    def close(self) -> None:
        """Release the file."""
        self._video = None


class TorchcodecReader:
    """Reads with torchcodec, which needs the system's FFmpeg. It scans the file first, for the time of each frame."""

    def __init__(self, path: str) -> None:
        with _library_errors("torchcodec"):
            from torchcodec.decoders import VideoDecoder

            self._video: Any = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
            self.num_frames = len(self._video)
            metadata = self._video.metadata
            self.fps = frame_rate(metadata.average_fps, self.num_frames, metadata.duration_seconds)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        with _library_errors("torchcodec"):
            frames = self._video.get_frames_at(indices.tolist()).data.numpy()
        return _require_rgb(frames, "torchcodec")

    def close(self) -> None:
        """Release the file."""
        self._video = None


class PyAVReader:
    """Reads with PyAV, always decoding from the first frame. This is the reference for the other backends.

    The first pass decodes all frames to count them, because the number in a container may be missing or wrong: it
    counts packets, which include those that an edit list removes, and one too many for packed B-frames. A short video,
    whose frames fit into `CACHE_BYTES`, is decoded only once.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._cache: list[av.VideoFrame] | None = []
        self._pass: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self.num_frames = cached_bytes = 0
        times = []
        with open_stream(path) as (container, stream):
            for frame in container.decode(stream):
                if not self.num_frames:
                    self._size = frame.width, frame.height  # other frames are rescaled to it
                self.num_frames += 1
                times.append(frame.time)
                cached_bytes += sum(plane.buffer_size for plane in frame.planes)
                if cached_bytes > CACHE_BYTES:
                    self._cache = None
                if self._cache is not None:
                    self._cache.append(frame)
            self.fps = stream_rate(stream, times)
        if not self.num_frames:
            raise VideoDecodeError("pyav: found no frame in the video stream")
        self._next = self.num_frames  # index of the next frame of self._pass

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`. A long file is decoded again; calls with ascending indices share one pass."""
        if self._cache is not None:
            return np.stack([self._to_array(self._cache[index]) for index in indices])
        if indices[0] < self._next:
            self._pass, self._next = self._decode(), 0
        remaining, frames = set(indices.tolist()), []
        for index, frame in self._pass:
            self._next = index + 1
            if index in remaining:
                frames.append(self._to_array(frame))
                if len(frames) == len(remaining):
                    return np.stack(frames)
        raise VideoDecodeError(f"pyav: the stream ends before frame {indices[len(frames)]}")

    def close(self) -> None:
        """Release the frames and the file."""
        self._cache, self._pass = None, iter(())

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        with open_stream(self._path) as (container, stream):
            yield from enumerate(container.decode(stream))

    def _to_array(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._size
        image = frame.to_ndarray(format="rgb24", width=width, height=height)
        return np.rot90(image, frame.rotation // 90)  # counter-clockwise


READERS: dict[str, type[Reader]] = {
    "decord": DecordReader,
    "pyav": PyAVReader,
    "torchcodec": TorchcodecReader,
    "images": ImageReader,
}


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


@contextmanager
def _library_errors(backend: str) -> Iterator[None]:
    """Raise a library's errors as VideoDecodeError. decord's own errors derive directly from Exception."""
    expected = (ImportError, OSError, RuntimeError, AssertionError, StopIteration, ValueError, IndexError)
    try:
        yield
    except Exception as error:
        if not isinstance(error, expected) and not type(error).__module__.startswith(backend):
            raise
        message = re.sub(r"\[[\d:]+\] \S+:\d+: ", "", first_line(error))  # without decord's time and source line
        raise VideoDecodeError(f"{backend}: {message}") from error


def _require_rgb(frames: np.ndarray, backend: str) -> np.ndarray:
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise VideoDecodeError(f"{backend}: found frames of shape {frames.shape[1:]}, expected (height, width, 3)")
    return frames
