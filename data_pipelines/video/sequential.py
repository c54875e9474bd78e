"""Read a long file once, from the first frame to the last, in the decoding process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any

import numpy as np

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.decoding_process import decoding_process, file_numbers, from_root
from data_pipelines.video.reader import CANNOT_BE_DECODED, TIMEOUT

FRAMES_PER_READ = 8  # full-size frames in memory at a time; 50 MB at 1920 x 1080, in each process


class FrameSequence:
    """A file whose frames are read in order. Use `open_sequence` to create it.

    Attributes:
        fps, seconds: what the file states, see `data_pipelines.video.backends.SequentialReader`.
    """

    def __init__(self, path: str) -> None:
        self._path, self._process, self._file = path, decoding_process(), next(file_numbers)
        answer = self._ask(action="open sequential", path=from_root(path), max_pixels=None)
        self.fps = answer["fps"] and Fraction(*answer["fps"])
        self.seconds: float | None = answer["seconds"]

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield consecutive frames, uint8 (n, H, W, 3), to the end of the file.

        Raises:
            VideoDecodeError: a frame cannot be decoded.
        """
        while (frames := self._ask(action="read next", count=FRAMES_PER_READ).get("frames")) is not None:
            yield frames

    def close(self) -> None:
        """Release the file."""
        if self._process.is_usable:
            with suppress(VideoDecodeError):
                self._ask(action="close")

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            return self._process.ask(TIMEOUT, file=self._file, **request)
        except VideoDecodeError as error:
            raise VideoDecodeError(f"{self._path}: {CANNOT_BE_DECODED}; {error}") from None


@contextmanager
def open_sequence(path: str | os.PathLike[str]) -> Iterator[FrameSequence]:
    """Open a video file for a ``with`` block, to read it once.

    Its frames are those of `data_pipelines.video.reader.VideoReader`. That knows the number of frames, for which it
    must decode some formats twice, and reads any of them.

    Raises:
        VideoDecodeError: the file cannot be opened.
    """
    sequence = FrameSequence(os.fspath(path))
    try:
        yield sequence
    finally:
        sequence.close()
