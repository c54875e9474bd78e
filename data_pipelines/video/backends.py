"""One video file opened by one decoder: decord, PyAV, torchcodec, or pictures.

Index i means the i-th frame that decoding from the start yields, in display order, upright, and as large as the first
frame. Where a file has several video streams, all read the one that FFmpeg calls the best.
"""

from __future__ import annotations

import importlib
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.io.listing import IMAGE_SUFFIXES
from data_pipelines.io.tar_paths import parse_tar_path

if TYPE_CHECKING:
    import av

DEFAULT_FPS = Fraction(25)  # for streams that state no frame rate: it names moments in seconds, nothing else
HIGHEST_FPS = 480  # no camera that these collections know
KEPT_BYTES = 256 * 2**20  # of decoded frames that PyAV's reader keeps while it counts them


class Reader(Protocol):
    """One file opened by one backend. Failing to open or to read raises VideoDecodeError."""

    num_frames: int
    fps: Fraction

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Frames uint8 (len(indices), H, W, 3) at ``indices``, which are unique and ascending."""

    def close(self) -> None: ...


class DecordReader:
    """decord: exact where groups of pictures are closed; applies the display rotation."""

    def __init__(self, path: str) -> None:
        with _other_errors("decord"):
            import decord

            decord.logging.set_level(decord.logging.QUIET)
            # As good as no tolerance: else frames that cannot be decoded are silently replaced by others.
            self._video = decord.VideoReader(path, num_threads=1, fault_tol=1e-9)
            self.num_frames = len(self._video)
            first, last = self._video.get_frame_timestamp([0, self.num_frames - 1])[:, 0].tolist()
            self.fps = frame_rate(self._video.get_avg_fps(), self.num_frames, last - first)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        with _other_errors("decord"):
            frames = self._video.get_batch(indices)
            # Others in this process (pytorchvideo) may have set decord's global bridge to torch.
            frames = frames.asnumpy() if hasattr(frames, "asnumpy") else np.asarray(frames)
        return _checked(frames, "decord")  # seen to fail on frames 1, 2 or 16 pixels wide

    def close(self) -> None:
        """Release the file."""
        self._video = None


class TorchcodecReader:
    """torchcodec (needs the system's FFmpeg), which scans the file first and so knows every frame's time."""

    def __init__(self, path: str) -> None:
        with _other_errors("torchcodec"):
            from torchcodec.decoders import VideoDecoder

            self._video = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
            self.num_frames = len(self._video)
            facts = self._video.metadata
            self.fps = frame_rate(facts.average_fps, self.num_frames, facts.duration_seconds)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        with _other_errors("torchcodec"):
            frames = self._video.get_frames_at(indices.tolist()).data.numpy()
        return _checked(frames, "torchcodec")

    def close(self) -> None:
        """Release the file."""
        self._video = None


class PyAVReader:
    """PyAV, always decoding from the first frame on: the truth."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._frames: list[av.VideoFrame] | None = []
        self._walk: Iterator[tuple[int, av.VideoFrame]] = iter(())
        with open_stream(path) as (container, stream):
            # Counted by decoding: containers count packets, which is one too many for packed B-frames and includes
            # what an edit list cuts away; many state no number at all. A short video is decoded only once.
            self.num_frames = kept = 0
            times = []
            for frame in container.decode(stream):
                if not self.num_frames:
                    self._size = frame.width, frame.height  # a stream may change its size; the first frame's holds
                self.num_frames += 1
                times.append(frame.time)
                kept += sum(plane.buffer_size for plane in frame.planes)
                if kept > KEPT_BYTES:
                    self._frames = None
                if self._frames is not None:
                    self._frames.append(frame)
            self.fps = stream_rate(stream, times)
        if not self.num_frames:
            raise VideoDecodeError("pyav: the video stream has no frame")
        self._next = self.num_frames  # frame that the walk through a long file comes to

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`; of a long file, a second pass that later calls go on with where they ask for later frames."""
        if self._frames is not None:
            return np.stack([self._picture(self._frames[index]) for index in indices])
        if indices[0] < self._next:
            self._walk, self._next = self._decode(), 0
        wanted, pictures = set(indices.tolist()), []
        for index, frame in self._walk:
            self._next = index + 1
            if index in wanted:
                pictures.append(self._picture(frame))
                if len(pictures) == len(wanted):
                    return np.stack(pictures)
        raise VideoDecodeError(f"pyav: the stream ends before frame {indices[len(pictures)]}")

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        with open_stream(self._path) as (container, stream):
            yield from enumerate(container.decode(stream))

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._size
        picture = frame.to_ndarray(format="rgb24", width=width, height=height)
        return np.rot90(picture, frame.rotation // 90)  # counter-clockwise

    def close(self) -> None:
        """Release the frames and the file."""
        self._frames, self._walk = None, iter(())


class PictureReader:
    """A picture (or one in a tar) as a video of one frame, or a folder of pictures, ordered by their names' numbers."""

    def __init__(self, path: str) -> None:
        self._files = [path]
        if os.path.isdir(path):
            names = [name for name in os.listdir(path) if name.lower().endswith(IMAGE_SUFFIXES)]
            self._files = [os.path.join(path, name) for name in sorted(names, key=_by_number)]
        if not self._files:
            raise VideoDecodeError("pictures: the folder holds none")
        self.num_frames, self.fps = len(self._files), DEFAULT_FPS

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Reader`."""
        pictures = [self._picture(self._files[index]) for index in indices]
        for index, picture in zip(indices, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                raise VideoDecodeError(
                    f"pictures: {os.path.basename(self._files[index])} is {picture.shape[:2]}, another is "
                    f"{pictures[0].shape[:2]} (height, width); all must be alike"
                )
        return np.stack(pictures)

    def _picture(self, file: str) -> np.ndarray:
        from PIL import Image, ImageOps, UnidentifiedImageError

        member = parse_tar_path(file)
        try:
            with Image.open(file if member is None else io.BytesIO(member.read())) as image:
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise VideoDecodeError(f"pictures: {os.path.basename(file)}: {first_line(error)}") from error

    def close(self) -> None:
        """Nothing is kept open between reads."""


READERS: dict[str, type[Reader]] = {
    "decord": DecordReader,
    "pyav": PyAVReader,
    "torchcodec": TorchcodecReader,
    "pictures": PictureReader,
}


def require_backend(name: str) -> None:
    """DataError where the package of a backend that a user insists on cannot be imported."""
    if name not in ("decord", "pyav", "torchcodec"):
        return
    package = "av" if name == "pyav" else name
    try:
        importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec: without FFmpeg's libraries
        raise DataError(
            f"data.backend: {name} cannot be imported ({first_line(error)}); pip install "
            f"{package}, or leave data.backend at auto"
        ) from None


def jumps_are_exact(path: str) -> bool:
    """Whether decord may begin at any key frame and still number the frames rightly, and gets their colours right.

    Looks at the packets alone (milliseconds): all must be shown and time-stamped, and none that follows a key
    frame in the file may precede it on screen, as the leading pictures of an open group do. Of more than 8 bits
    per colour decord makes other values than FFmpeg.
    """
    try:
        with open_stream(path) as (container, stream):
            if not {"mp4", "matroska"} & set(container.format.name.split(",")):
                return False
            pixels = stream.codec_context.format
            if pixels is None or max(component.bits for component in pixels.components) > 8:
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


@contextmanager
def open_stream(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its best video stream for PyAV; failures inside the block, too, become VideoDecodeError."""
    try:
        import av
    except ImportError as error:
        raise VideoDecodeError(f"pyav: {first_line(error)}") from error
    av.logging.set_level(av.logging.PANIC)
    try:
        # Old AVIs have tags in no valid encoding; they are of no interest here.
        with av.open(path, metadata_errors="ignore") as container:
            if container.format.name == "tty":
                raise VideoDecodeError("pyav: a text file, which FFmpeg would show as a terminal does")
            stream = container.streams.best("video")
            if stream is None:
                raise VideoDecodeError("pyav: the file has no video stream")
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.FFmpegError as error:
        part = f" ({error.log[1]}: {error.log[2].strip()})" if error.log else ""
        raise VideoDecodeError(f"pyav: {error.strerror or first_line(error)}{part}") from error


@contextmanager
def _other_errors(backend: str) -> Iterator[None]:
    """A library's failures as VideoDecodeError; decord's own derive from Exception alone: known by their module."""
    try:
        yield
    except Exception as error:
        expected = (ImportError, OSError, RuntimeError, AssertionError, StopIteration, ValueError, IndexError)
        if not isinstance(error, expected) and not type(error).__module__.startswith(backend):
            raise
        said = re.sub(r"\[[\d:]+\] \S+:\d+: ", "", first_line(error))  # decord's clock and its source's line
        raise VideoDecodeError(f"{backend}: {said}") from error


def _checked(frames: np.ndarray, backend: str) -> np.ndarray:
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise VideoDecodeError(f"{backend}: frames of shape {frames.shape[1:]}, not (height, width, 3)")
    return frames


def stream_rate(stream: av.VideoStream, times: Sequence[float | None]) -> Fraction:
    """Frames per second of a stream whose frames are shown at ``times`` seconds."""
    known = [time for time in times if time is not None]
    spent = max(known) - min(known) if known else 0.0
    return frame_rate(stream.average_rate or stream.guessed_rate, len(times), spent)


def frame_rate(stated: Any, frames: int, spent: float | None) -> Fraction:
    """Frames per second as an exact fraction (29.97002997 -> 30000/1001).

    Args:
        stated: what the file says. Matroska of variable frame rate says the clock's 1000 a second.
        frames: how many there are.
        spent: seconds from the first to the last; takes the place of a rate that cannot be.
    """
    if stated and math.isfinite(stated) and 0 < stated <= HIGHEST_FPS:
        return Fraction(stated).limit_denominator(10_000)
    if spent and frames > 1:
        return Fraction((frames - 1) / spent).limit_denominator(10_000)
    return DEFAULT_FPS


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _by_number(name: str) -> Sequence[Any]:
    """img_2.jpg before img_10.jpg, whatever stands around the numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
