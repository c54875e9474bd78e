"""Read frames of a video with decord, PyAV or torchcodec, in a separate process that may hang or crash.

The correct frames are those that decoding from the start yields, in display order. Seeking to the key frame before the
requested frame is faster, but only exact if every group of pictures is closed and has time stamps. The backend "auto"
then seeks with PyAV (`data_pipelines.video.seeking`), or with decord where that has always determined the pixels. For
all other files (open groups of pictures, AVI, ASF, MPEG-TS, ...), of which decord 0.6 silently returns other frames,
and as a fallback, it uses PyAV, which decodes from the start.

An image is a video of one frame. In a folder of images, each image is a frame. An image may be inside a tar file
(`data_pipelines.io.tar_paths`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction

import numpy as np

from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.io.listing import is_image
from data_pipelines.io.tar_paths import containing_file, size_and_mtime
from data_pipelines.video.backends import GuardedReader
from data_pipelines.video.decoding_process import RemoteReader, remote_seeking_is_exact
from data_pipelines.video.streams import seeking_is_exact

BACKENDS = ("auto", "decord", "pyav", "torchcodec")
TIMEOUT = 60.0  # seconds; long enough for any intact file
CANNOT_BE_DECODED, NO_SUCH_FILE = "cannot be decoded", "no such video file"  # after the path, in messages of errors


class VideoReader:
    """An open video. Use `open_video` to create it. If a backend fails, the next one is tried.

    Attributes:
        path: the file or folder.
        num_frames: number of frames.
        fps: average frame rate, as an exact fraction.
    """

    num_frames: int
    fps: Fraction

    def __init__(
        self,
        path: str | os.PathLike[str],
        backend: str = "auto",
        timeout: float = TIMEOUT,
        max_pixels: int | None = None,
    ) -> None:
        self.path, self._timeout, self._max_pixels = os.fspath(path), timeout, max_pixels
        _require_file(self.path)
        self._untried = _backends_for(self.path, backend)
        self._is_auto = backend == "auto"
        self._failures: list[str] = []
        self._reader: GuardedReader | RemoteReader | None = None
        reader = self._open_next()
        self.num_frames, self.fps = reader.num_frames, reader.fps

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at ``indices``: uint8 (T, H, W, 3).

        Args:
            indices: in any order, with or without repetitions. Each frame is decoded once.

        Raises:
            DataError: there are no indices, or one is outside [0, num_frames).
            VideoDecodeError: no backend can decode these frames.
        """
        unique, inverse = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if not len(unique) or unique[0] < 0 or unique[-1] >= self.num_frames:
            found = f"{unique[0]} to {unique[-1]}" if len(unique) else "none"
            raise DataError(f"{self.path}: found frame indices {found}, expected 0 to {self.num_frames - 1}")
        while True:
            reader = self._reader or self._open_next()
            try:
                # The indices are chosen for the number of frames that the first backend found.
                if reader.num_frames != self.num_frames:
                    raise VideoDecodeError(
                        f"{self._backend}: found {reader.num_frames} frames, expected the {self.num_frames} of the "
                        "backend that failed"
                    )
                frames = reader.read(unique)
            except VideoDecodeError as error:
                self._failures.append(str(error))
                self.close()
            else:
                is_identity = np.array_equal(inverse, np.arange(len(frames)))
                return frames if is_identity else frames[inverse]

    def close(self) -> None:
        """Release the file. Errors are ignored, because the frames have been read."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(VideoDecodeError):
                reader.close()

    def _open_next(self) -> GuardedReader | RemoteReader:
        """Open the file with the next backend that can open it, or raise a VideoDecodeError."""
        while self._untried:
            backend = self._backend = self._untried.pop(0)
            if backend == "decord" and self._is_auto and not self._seeking_is_exact():
                continue
            try:
                if self._timeout:
                    self._reader = RemoteReader(backend, self.path, self._timeout, self._max_pixels)
                else:
                    self._reader = GuardedReader(backend, self.path, self._max_pixels)
                return self._reader
            except VideoDecodeError as error:
                self._failures.append(str(error))
        raise VideoDecodeError(f"{self.path}: {CANNOT_BE_DECODED}; " + "; ".join(self._failures))

    def _seeking_is_exact(self) -> bool:
        if self._timeout:
            return remote_seeking_is_exact(self.path, self._timeout, self._max_pixels)
        return seeking_is_exact(self.path, self._max_pixels)


@contextmanager
def open_video(
    path: str | os.PathLike[str], backend: str = "auto", timeout: float = TIMEOUT, max_pixels: int | None = None
) -> Iterator[VideoReader]:
    """Open a video for a ``with`` block. The reader must not be used in a forked process.

    Args:
        path: a video file, an image, an image inside a tar, or a folder of images.
        backend: "decord", "pyav", "torchcodec" or "auto" (see the module). Each decodes with one thread.
        timeout: time limit for opening and for each read, in seconds. With 0, this process decodes without a limit.
        max_pixels: largest frame that is read. None is 2**26 for images and 2**24 for videos, because a clip has many
            frames.

    Raises:
        MissingDataError: the file does not exist.
        VideoDecodeError: no backend can read it; the message lists what each one reported.
    """
    reader = VideoReader(path, backend, timeout, max_pixels)
    try:
        yield reader
    finally:
        reader.close()


def read_frames(
    path: str | os.PathLike[str],
    indices: Sequence[int] | np.ndarray,
    backend: str = "auto",
    timeout: float = TIMEOUT,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Return the frames of ``path`` at ``indices``: uint8 RGB (T, H, W, 3). See `open_video` and `VideoReader.read`."""
    with open_video(path, backend, timeout, max_pixels) as video:
        return video.read(indices)


def _backends_for(path: str, backend: str) -> list[str]:
    """Return the names in ``backends.READERS`` to try, in order."""
    if backend not in BACKENDS:
        raise DataError(f"backend: found {backend!r}, expected one of {', '.join(BACKENDS)}")
    if os.path.isdir(path) or is_image(path):
        return ["images"]
    return ["seek", "decord", "pyav"] if backend == "auto" else [backend]


def _require_file(path: str) -> None:
    if os.path.isdir(path):
        return
    if not os.path.isfile(containing_file(path)):
        if os.path.exists(containing_file(path)):
            raise VideoDecodeError(f"{path}: {CANNOT_BE_DECODED}; found a pipe or device, expected a file")
        raise MissingDataError(f"{path}: {NO_SUCH_FILE}")
    if size_and_mtime(path)[0] == 0:
        raise VideoDecodeError(f"{path}: {CANNOT_BE_DECODED}; found an empty file (0 bytes)")


def failed_path(message: str) -> str:
    """The path in the message of an error about a video; the whole message if there is none."""
    return re.split(f": (?:{CANNOT_BE_DECODED}|{NO_SUCH_FILE})", message, maxsplit=1)[0]
