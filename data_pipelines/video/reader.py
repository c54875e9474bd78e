"""Frames out of a video, with decord, PyAV or torchcodec, in a process that may hang or crash.

The truth is what decoding the file from its first frame on yields, in display order. decord jumps to the
key frame before the one asked for, which saves decoding but is only exact where every group of pictures is
closed and time-stamped; elsewhere (open groups of pictures, AVI, ASF, MPEG-TS, ...) decord 0.6 returns
other frames without a word. "auto" therefore uses decord where its jumps are exact and PyAV, decoding from
the start, for all other files and for those decord fails on. A picture is a video of one frame, a folder of
pictures one of many; a picture may lie in a tar (`data_pipelines.io.tar_paths`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction

import numpy as np

from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.io.listing import IMAGE_SUFFIXES
from data_pipelines.io.tar_paths import containing_file, size_and_mtime
from data_pipelines.video.backends import READERS, Reader, jumps_are_exact
from data_pipelines.video.decoding_process import RemoteReader, remote_jumps_are_exact

BACKENDS = ("auto", "decord", "pyav", "torchcodec")
SECONDS = 60.0  # no healthy file needs as long; a damaged one must not stop a run


class VideoReader:
    """An open video; made by `open_video`.

    Attributes:
        num_frames: how many frames the file holds.
        fps: average frame rate, exact.
    """

    num_frames: int
    fps: Fraction

    def __init__(self, path: str | os.PathLike[str], backend: str = "auto", seconds: float = SECONDS) -> None:
        self.path, self._seconds = os.fspath(path), seconds
        _check_file(self.path)
        self._waiting = self._backends(backend)
        self._failures: list[str] = []
        self._reader: Reader | None = None
        self._open_next()
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
            raise DataError(f"{self.path}: {asked} asked for, but the video has frames 0 to {self.num_frames - 1}")
        while True:
            try:
                frames = self._reader.read(unique)
                return frames if np.array_equal(inverse, np.arange(len(frames))) else frames[inverse]
            except VideoDecodeError as error:
                self._failures.append(str(error))
                self.close()
                self._open_next()

    def close(self) -> None:
        """Release the file."""
        reader, self._reader = self._reader, None
        with suppress(VideoDecodeError):  # what was read is fine
            if reader is not None:
                reader.close()

    def _backends(self, backend: str) -> list[str]:
        """Which to try, in order."""
        if backend not in BACKENDS:
            raise DataError(f"backend: {backend!r} is none of {', '.join(BACKENDS)}")
        if os.path.isdir(self.path) or self.path.lower().endswith(IMAGE_SUFFIXES):
            return ["pictures"]
        if backend != "auto":
            return [backend]
        exact = remote_jumps_are_exact(self.path, self._seconds) if self._seconds else jumps_are_exact(self.path)
        return ["decord", "pyav"] if exact else ["pyav"]

    def _open_next(self) -> None:
        while self._waiting:
            backend = self._waiting.pop(0)
            try:
                # Pillow neither hangs nor crashes, and pictures are too small to be worth a trip.
                if self._seconds and backend != "pictures":
                    self._reader = RemoteReader(backend, self.path, self._seconds)
                else:
                    self._reader = READERS[backend](self.path)
                return
            except VideoDecodeError as error:
                self._failures.append(str(error))
        raise VideoDecodeError(f"{self.path}: cannot be decoded; " + "; ".join(self._failures))


@contextmanager
def open_video(path: str | os.PathLike[str], backend: str = "auto", seconds: float = SECONDS) -> Iterator[VideoReader]:
    """Open a video for the length of a ``with`` block, where it is used: a reader must not cross a fork.

    Args:
        path: a video file, a picture, one in a tar, or a folder of pictures.
        backend: "decord", "pyav", "torchcodec", or "auto" (see the module's docstring). One decoding thread each.
        seconds: how long opening, and each read, may take; 0 decodes in this process and waits for ever.

    Raises:
        MissingDataError: no such file.
        VideoDecodeError: no backend can read it; the message says what each one found.
    """
    reader = VideoReader(path, backend, seconds)
    try:
        yield reader
    finally:
        reader.close()


def read_frames(
    path: str | os.PathLike[str], indices: Sequence[int], backend: str = "auto", seconds: float = SECONDS
) -> np.ndarray:
    """Frames of ``path`` at ``indices``, uint8 (T, H, W, 3) RGB. See `open_video` and `VideoReader.read`."""
    with open_video(path, backend, seconds) as video:
        return video.read(indices)


def _check_file(path: str) -> None:
    if os.path.isdir(path):
        return
    if not os.path.isfile(containing_file(path)):
        raise MissingDataError(f"{path}: no such video file")
    if size_and_mtime(path)[0] == 0:
        raise VideoDecodeError(f"{path}: cannot be decoded; the file is empty (0 bytes)")
