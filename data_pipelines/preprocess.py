"""Preprocess videos for a trained model: from a file to the model's input.

A run builds the preprocessing from its configuration and writes it to ``preprocessing`` in model.json. To use it:

    preprocess = Preprocess.from_dict(json.loads(Path("runs/camera_motion/model.json").read_text())["preprocessing"])
    preprocess("clip.mp4")                                    # model input, float32 (3, T, crop, crop) in [-1, 1]
    preprocess.clip("clip.mp4")                               # the same clip as uint8, for display
    for start, end, clip in preprocess.clips("video.mp4"):    # consecutive clips of a long video, uint8
        ...
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from data_pipelines.io.errors import DataError
from data_pipelines.sampling import Sampling, require_crop_within, require_positive_integer, resized_size, spatial_crops
from data_pipelines.transforms.geometry import RESIZE_METHODS, crop_views
from data_pipelines.transforms.normalization import to_model_input
from data_pipelines.video.reader import TIMEOUT, VideoReader, open_video
from data_pipelines.video.streams import DEFAULT_FPS

REQUIRED_KEYS = ("frames", "stride", "short_side", "crop")
OPTIONAL_KEYS = ("range", "target_fps", "sampling", "resize")
MODEL_RANGE = [-1, 1]  # of the values that `to_model_input` returns
FRAMES_PER_READ = 32  # number of full-size frames in memory at a time; 0.2 GB at 1920 x 1080
MAX_CLIP_PIXELS, MAX_SIDE = 2**30, 2**14  # limits for model.json files of others, which could exhaust the memory
BYTES_PER_SECOND = 1e6  # a fifth of one core's decoding rate; extends TIMEOUT for large files


class TimedClip(NamedTuple):
    """A clip, uint8 (3, T, crop, crop), with its start and end in seconds from the video's first frame."""

    start: float
    end: float
    video: Tensor


class ArrayReader:
    """Reads frames from an array, with the interface of `VideoReader`, at 25 frames per second.

    Args:
        frames: a video, uint8 (T, H, W, 3), or an image, uint8 (H, W, 3).

    Raises:
        DataError: any other array.
    """

    fps = DEFAULT_FPS

    def __init__(self, frames: np.ndarray) -> None:
        video = frames[None] if frames.ndim == 3 else frames
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or not video.size:
            raise DataError(
                f"video: found an array of {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3), or (H, W, 3) "
                "for an image"
            )
        self._frames, self.num_frames = video, len(video)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Frames at ``indices``, uint8 (len(indices), H, W, 3)."""
        return self._frames[indices]


Reader = VideoReader | ArrayReader
# Path of a video, an image or a folder of images; uint8 (T, H, W, 3), or (H, W, 3) of an image; or an open reader.
Video = str | os.PathLike[str] | np.ndarray | Tensor | Image.Image | Reader


@contextmanager
def open_any(video: Video) -> Iterator[Reader]:
    """Open any kind of `Video` for a ``with`` block. A reader that is already open stays open.

    Raises:
        MissingDataError, VideoDecodeError: as `data_pipelines.video.reader.open_video`.
        DataError: ``video`` has another type or shape.
    """
    if isinstance(video, (VideoReader, ArrayReader)):
        yield video
    elif isinstance(video, (str, os.PathLike)):
        num_bytes = os.path.getsize(video) if os.path.isfile(video) else 0
        with open_video(video, timeout=TIMEOUT + num_bytes / BYTES_PER_SECOND) as reader:
            yield reader
    elif isinstance(video, Image.Image):
        yield ArrayReader(np.asarray(ImageOps.exif_transpose(video).convert("RGB")))
    elif isinstance(video, Tensor):
        yield ArrayReader(video.cpu().numpy())
    elif isinstance(video, np.ndarray):
        yield ArrayReader(video)
    else:
        raise DataError(f"video: found {type(video).__name__}, expected a path, a uint8 array or an image")


@dataclass(frozen=True)
class Preprocess:
    """Turns a video into a model's input: select frames, resize, crop a square, map pixels to [-1, 1].

    Attributes:
        sampling: selects the frames of a clip.
        short_side: shorter side of the frames after resizing, pixels.
        crop: side of the square crop, pixels, at most ``short_side``.
        resize: "bilinear" (without antialiasing) or "area"; see `data_pipelines.transforms.geometry`.

    Raises:
        DataError: a value out of range.
    """

    sampling: Sampling
    short_side: int
    crop: int
    resize: str = "bilinear"

    def __post_init__(self) -> None:
        require_positive_integer("short_side", self.short_side)
        require_positive_integer("crop", self.crop)
        require_crop_within(self.crop, self.short_side)
        num_pixels = self.sampling.frames * self.crop**2
        if num_pixels > MAX_CLIP_PIXELS or self.short_side > MAX_SIDE:
            raise DataError(
                f"crop: found clips of {self.sampling.frames} x {self.crop} x {self.crop} pixels from frames of "
                f"{self.short_side}, expected at most {MAX_CLIP_PIXELS} pixels and sides of {MAX_SIDE}"
            )
        if self.resize not in RESIZE_METHODS:
            raise DataError(f"resize: found {self.resize!r}, expected {' or '.join(RESIZE_METHODS)}")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preprocess:
        """Build from the ``preprocessing`` entry of a model.json. This is the inverse of `to_dict`.

        Raises:
            DataError: a key is missing or unknown, or its value is invalid.
        """
        known = (*REQUIRED_KEYS, *OPTIONAL_KEYS)
        if not isinstance(settings, Mapping):
            raise DataError(f"preprocessing: found {settings!r}, expected a mapping with the keys {', '.join(known)}")
        for key in settings:
            if key not in known:
                raise DataError(f"preprocessing: found an unknown key {key!r}, expected {', '.join(known)}")
        for key in REQUIRED_KEYS:
            if key not in settings:
                raise DataError(f"preprocessing.{key}: missing, expected a whole number of at least 1")
        pixel_range = settings.get("range", MODEL_RANGE)
        if pixel_range not in (MODEL_RANGE, tuple(MODEL_RANGE)):
            raise DataError(f"preprocessing.range: found {pixel_range!r}, expected {MODEL_RANGE}")
        kind = settings.get("sampling", "clip")
        if kind not in ("clip", "segments"):
            raise DataError(f"preprocessing.sampling: found {kind!r}, expected clip or segments")
        try:
            sampling = Sampling(
                settings["frames"], settings["stride"], settings.get("target_fps"), segments=kind == "segments"
            )
            return cls(sampling, settings["short_side"], settings["crop"], settings.get("resize", "bilinear"))
        except DataError as error:
            raise DataError(f"preprocessing.{error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the ``preprocessing`` entry of a model.json. Optional settings with default values are omitted."""
        settings: dict[str, Any] = {
            "frames": self.sampling.frames,
            "stride": self.sampling.stride,
            "short_side": self.short_side,
            "crop": self.crop,
            "range": list(MODEL_RANGE),
        }
        if self.sampling.target_fps is not None:
            settings["target_fps"] = self.sampling.target_fps
        if self.sampling.segments:
            settings["sampling"] = "segments"
        if self.resize != "bilinear":
            settings["resize"] = self.resize
        return settings

    def with_crop(self, side: int) -> Preprocess:
        """The same preprocessing at another resolution: crops of ``side`` pixels, ``short_side`` in proportion."""
        return replace(self, crop=side, short_side=round(self.short_side * side / self.crop))

    def __call__(self, video: Video, start: float | None = None) -> Tensor:
        """One clip as model input, float32 (3, T, crop, crop) in [-1, 1]; T is 1 for an image model. See `clip`."""
        return to_model_input(self.clip(video, start))

    def clip(self, video: Video, start: float | None = None) -> Tensor:
        """One clip for display: the central crop, uint8 (3, T, crop, crop).

        Args:
            video: path of a video, an image or a folder of images; an array, uint8 (T, H, W, 3) or (H, W, 3), or a PIL
                image, at 25 frames per second; or a reader of `open_any`. A video shorter than a clip is repeated.
            start: start of the clip in seconds from the video's first frame; by default the central clip.

        Raises:
            MissingDataError: the file does not exist.
            VideoDecodeError: the file cannot be decoded.
            DataError: ``video`` has another type or shape, or ``start`` is outside the video.
        """
        return self.timed_clip(video, start)[0]

    def timed_clip(self, video: Video, start: float | None = None) -> tuple[Tensor, np.ndarray]:
        """Return `clip`, and the times of its frames in seconds from the video's first frame, float64 (T,)."""
        with open_any(video) as reader:
            num_frames, fps = reader.num_frames, reader.fps
            if start is None:
                indices = self.sampling.test_clips(num_frames, fps, num_clips=1)[0]
            else:
                duration = num_frames / fps
                if not 0 <= start < duration:
                    raise DataError(
                        f"start: found {start} s, expected at least 0 s and less than {float(duration):g} s"
                    )
                indices = self.sampling.clip_from(math.floor(exact_seconds(start) * fps), num_frames, fps)
            views, _ = self.views_of(reader, indices[None], num_crops=1)
            return views[0], indices / float(fps)

    def views(self, video: Video, num_clips: int = 1, num_crops: int = 1) -> Tensor:
        """Return evenly spaced clips and their crops, from one decode: uint8 (num_clips * num_crops, 3, T, crop, crop).

        Views are ordered by clip, then by crop.

        Raises:
            as `clip`, and DataError for a number of crops other than 1 or 3.
        """
        with open_any(video) as reader:
            clips = self.sampling.test_clips(reader.num_frames, reader.fps, num_clips)
            return self.views_of(reader, clips, num_crops)[0]

    def views_of(self, reader: Reader, clips: np.ndarray, num_crops: int) -> tuple[Tensor, list[tuple[int, int]]]:
        """Read the given clips of an open video. Each frame is read once.

        Args:
            reader: the video.
            clips: frame indices, int64 (N, T).
            num_crops: 1 or 3, see `data_pipelines.sampling.spatial_crops`.

        Returns:
            Views, uint8 (N * num_crops, 3, T, crop, crop), and (top, left) of each of the ``num_crops`` crops in pixels
            of the resized frame.
        """
        cropped = list(self._cropped_frames(reader, np.unique(clips), num_crops))
        frames = {index: crops for index, _, crops in cropped}
        views = torch.cat([torch.stack([frames[index] for index in clip], dim=2) for clip in clips.tolist()])
        return views, cropped[0][1]

    def clips(self, video: Video, seconds_between: float | None = None) -> Iterator[TimedClip]:
        """Yield the central crops of clips that cover a video, in order. Only one clip is in memory at a time.

        Args:
            video: as for `clip`.
            seconds_between: time between the starts of two clips, by default the duration of a clip. The last clip ends
                with the video.

        Raises:
            as `clip`, and DataError for a time that is not positive.
        """
        with open_any(video) as reader:
            spacing = None if seconds_between is None else exact_seconds(seconds_between)
            spans = self.sampling.sliding_clips(reader.num_frames, reader.fps, spacing)
            unread = np.unique(np.concatenate([span.indices for span in spans]))  # ascending
            frames: dict[int, Tensor] = {}  # cropped frames of this clip and of those that overlap it
            for start, end, indices in spans:
                # Frames of later clips may lie between those of this clip. They are read now, to avoid seeking back.
                num_needed = np.searchsorted(unread, indices.max(), side="right")
                needed, unread = unread[:num_needed], unread[num_needed:]
                frames = {index: crop for index, crop in frames.items() if index >= indices.min()}
                frames.update((index, crops) for index, _, crops in self._cropped_frames(reader, needed, num_crops=1))
                clip = torch.stack([frames[index] for index in indices.tolist()], dim=2)[0]
                yield TimedClip(float(start), float(end), clip)

    def crop_frames(self, frames: np.ndarray) -> Tensor:
        """The central crop of each frame, uint8 (n, H, W, 3) -> (n, 3, crop, crop).

        Raises:
            DataError: any other array.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise DataError(f"frames: found an array of {frames.dtype} {frames.shape}, expected uint8 (n, H, W, 3)")
        video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # (n, H, W, 3) -> (n, 3, H, W)
        return crop_views(video, self.short_side, self.crop, 1, self.resize)[0].transpose(0, 1)

    def _cropped_frames(
        self, reader: Reader, indices: np.ndarray, num_crops: int
    ) -> Iterator[tuple[int, list[tuple[int, int]], Tensor]]:
        """Read frames in ascending order, `FRAMES_PER_READ` at a time.

        Yields:
            For each frame its index, (top, left) of its crops, and the crops, uint8 (num_crops, 3, crop, crop).
        """
        for first in range(0, len(indices), FRAMES_PER_READ):
            chunk = indices[first : first + FRAMES_PER_READ]
            video = torch.from_numpy(reader.read(chunk)).permute(0, 3, 1, 2)  # (T, H, W, 3) -> (T, 3, H, W)
            height, width = resized_size(video.shape[-2], video.shape[-1], self.short_side)
            corners = spatial_crops(height, width, self.crop, num_crops)
            views = crop_views(video, self.short_side, self.crop, num_crops, self.resize)  # (V, 3, T, crop, crop)
            for index, crops in zip(chunk.tolist(), views.unbind(dim=2), strict=True):
                yield index, corners, crops


def exact_seconds(seconds: float) -> Fraction:
    """Return the decimal number that a float stands for.

    At 25 fps, 0.12 s is frame 3, but the float 0.12 is slightly less.

    Raises:
        DataError: ``seconds`` is not finite.
    """
    if not math.isfinite(seconds):
        raise DataError(f"seconds: found {seconds}, expected a finite number")
    return Fraction(seconds).limit_denominator(1_000_000)
