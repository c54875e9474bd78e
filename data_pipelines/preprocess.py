"""What a video goes through before a trained model sees it, as the ``preprocessing`` of its model.json tells.

preprocess = Preprocess.from_dict(json.loads(Path("runs/camera_motion/model.json").read_text())["preprocessing"])
preprocess("clip.mp4")                                   # float32 (3, T, crop, crop) in [-1, 1], for the model
preprocess.clip("clip.mp4")                              # the same as uint8, to look at
for start, end, clip in preprocess.clips("film.mp4"):    # one clip after the other, uint8
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
from data_pipelines.sampling import Sampling, resized_size, spatial_crops
from data_pipelines.transforms.clip_transforms import RESIZES, crop_views
from data_pipelines.transforms.normalization import normalize
from data_pipelines.video.backends import DEFAULT_FPS
from data_pipelines.video.reader import SECONDS, VideoReader, open_video

KEYS = ("frames", "stride", "short_side", "crop", "range", "target_fps", "sampling", "resize")
AT_A_TIME = 32  # whole frames in memory: 0.2 GB of 1920 x 1080
BYTES_PER_SECOND = 1e6  # a fifth of what one core decodes of ordinary video: long films need longer than SECONDS


class TimedClip(NamedTuple):
    """A clip uint8 (3, T, crop, crop), and where in its video it lies, in seconds."""

    start: float
    end: float
    video: Tensor


class ArrayReader:
    """Frames that are in memory already, uint8 (T, H, W, 3), with a `VideoReader`'s methods; 25 a second.

    Raises:
        DataError: an array that is none of uint8 (T, H, W, 3) and (H, W, 3).
    """

    fps = DEFAULT_FPS

    def __init__(self, frames: np.ndarray) -> None:
        frames = frames[None] if frames.ndim == 3 else frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise DataError(
                f"video: found an array of {frames.dtype} {frames.shape}, must be uint8 (T, H, W, 3), or (H, W, 3) of "
                "a picture"
            )
        self._frames, self.num_frames = frames, len(frames)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Frames at ``indices``, uint8 (len(indices), H, W, 3)."""
        return self._frames[indices]


# A video, a picture or a folder of pictures on disk; uint8 (T, H, W, 3), or (H, W, 3) of a picture; or an open reader.
Video = str | os.PathLike[str] | np.ndarray | Tensor | Image.Image | VideoReader | ArrayReader


@contextmanager
def open_any(video: Video) -> Iterator[VideoReader | ArrayReader]:
    """A reader of anything that `Preprocess` takes, for the length of a ``with`` block.

    A reader that is open already is handed back and stays open.

    Raises:
        MissingDataError, VideoDecodeError: as `data_pipelines.video.reader.open_video`.
        DataError: not a video.
    """
    if isinstance(video, (VideoReader, ArrayReader)):
        yield video
    elif isinstance(video, (str, os.PathLike)):
        size = os.path.getsize(video) if os.path.isfile(video) else 0
        with open_video(video, seconds=SECONDS + size / BYTES_PER_SECOND) as reader:
            yield reader
    elif isinstance(video, Image.Image):
        yield ArrayReader(np.asarray(ImageOps.exif_transpose(video).convert("RGB")))
    elif isinstance(video, (np.ndarray, Tensor)):
        yield ArrayReader(video.cpu().numpy() if isinstance(video, Tensor) else video)
    else:
        raise DataError(f"video: found {type(video).__name__}, must be a path, uint8 (T, H, W, 3) or a picture")


@dataclass(frozen=True)
class Preprocess:
    """From a video to what a model was trained on: which frames, their shorter side, a square crop, values in [-1, 1].

    Attributes:
        sampling: which frames make up a clip.
        short_side: shorter side of the frames before the crop, pixels.
        crop: side of the square crop, pixels.
        resize: how to get to that side, "bilinear" or by "area".
    """

    sampling: Sampling
    short_side: int
    crop: int
    resize: str = "bilinear"

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Preprocess:
        """Read the ``preprocessing`` of a model.json.

        Raises:
            DataError: a key that is missing, unknown or has an impossible value.
        """
        if not isinstance(told, Mapping):
            raise DataError(f"preprocessing: found {told!r}, must be a mapping with the keys {', '.join(KEYS)}")
        for key in told:
            if key not in KEYS:
                raise DataError(f"preprocessing: found the key {key!r}, known are {', '.join(KEYS)}")
        frames, stride, short_side, crop = (
            _whole_number(told, key) for key in ("frames", "stride", "short_side", "crop")
        )
        if crop > short_side:
            raise DataError(f"preprocessing.crop: found {crop}, must be at most short_side, {short_side}")
        if list(told.get("range", [-1, 1])) != [-1, 1]:
            raise DataError(f"preprocessing.range: found {told['range']!r}, must be [-1, 1], as for every model")
        rate, kind = told.get("target_fps"), told.get("sampling", "clip")
        if rate is not None:
            if not _is_number(rate) or not math.isfinite(rate) or rate <= 0:
                raise DataError(f"preprocessing.target_fps: found {rate!r}, must be a positive number")
            rate = Fraction(rate).limit_denominator(10_000)
        if kind not in ("clip", "segments"):
            raise DataError(f"preprocessing.sampling: found {kind!r}, must be clip or segments")
        resize = told.get("resize", "bilinear")
        if resize not in RESIZES:
            raise DataError(f"preprocessing.resize: found {resize!r}, must be {' or '.join(RESIZES)}")
        return cls(Sampling(frames, stride, rate, kind == "segments"), short_side, crop, resize)

    def __call__(self, video: Video, start: float | None = None) -> Tensor:
        """One clip as a model takes it, float32 (3, T, crop, crop) in [-1, 1], T = 1 for an image model. See `clip`."""
        return normalize(self.clip(video, start))

    def clip(self, video: Video, start: float | None = None) -> Tensor:
        """One clip to look at: the central crop, uint8 (3, T, crop, crop).

        Args:
            video: a video, a picture or a folder of pictures on disk; an array uint8 (T, H, W, 3) or (H, W, 3), or a
                PIL image, of which 25 make a second; or a reader of `open_any`. One shorter than a clip is repeated.
            start: seconds from the video's first frame to the clip's; by default the clip in the middle.

        Raises:
            MissingDataError: no such file.
            VideoDecodeError: a file that cannot be read.
            DataError: not a video, or a start that lies outside.
        """
        return self.timed_clip(video, start)[0]

    def timed_clip(self, video: Video, start: float | None = None) -> tuple[Tensor, np.ndarray]:
        """`clip`, and when each of its frames is shown, float64 (T,), seconds from the video's first frame on."""
        with open_any(video) as reader:
            count, fps = reader.num_frames, reader.fps
            if start is None:
                indices = self.sampling.test_clips(count, fps, 1)[0]
            else:
                if not 0 <= start < count / fps:
                    length = float(count / fps)
                    raise DataError(f"start: found {start} s, must lie in the video, from 0 to below {length:g} s")
                indices = self.sampling.clip_from(math.floor(_exact(start) * fps), count, fps)
            return self.views_of(reader, indices[None], 1)[0][0], indices / float(fps)

    def at(self, side: int) -> Preprocess:
        """The same with crops of ``side`` pixels, out of frames that are larger or smaller in proportion."""
        return replace(self, crop=side, short_side=round(self.short_side * side / self.crop))

    def views(self, video: Video, num_clips: int = 1, num_crops: int = 1) -> Tensor:
        """Evenly spaced clips and crops, clip by clip: uint8 (num_clips * num_crops, 3, T, crop, crop), one decode.

        Raises:
            as `clip`, and DataError for another number of crops than 1 or 3.
        """
        with open_any(video) as reader:
            clips = self.sampling.test_clips(reader.num_frames, reader.fps, num_clips)
            return self.views_of(reader, clips, num_crops)[0]

    def clips(
        self, video: Video, seconds_between: float | None = None, num_clips: int | None = None
    ) -> Iterator[TimedClip]:
        """Clips from the video's beginning to its end, in order, central crops; one after the other as they are read.

        Args:
            video: as for `clip`.
            seconds_between: from the start of one clip to the start of the next; by default a clip's length. The last
                clip ends with the video.
            num_clips: how many, evenly spaced, instead.

        Raises:
            as `clip`, and DataError for a number that is not positive.
        """
        with open_any(video) as reader:
            between = None if seconds_between is None else _exact(seconds_between)
            found = self.sampling.sliding_clips(reader.num_frames, reader.fps, between, num_clips)
            wanted = np.unique(np.concatenate([indices for *_, indices in found]))
            kept: dict[int, Tensor] = {}  # cropped frames of this clip and of those it overlaps
            for start, end, indices in found:
                # Also those between this clip's frames that later ones want: reading never has to go back.
                fresh, wanted = np.split(wanted, [np.searchsorted(wanted, indices.max(), side="right")])
                kept = {index: frame for index, frame in kept.items() if index >= indices.min()}
                kept.update((index, crops) for index, _, crops in self._frames(reader, fresh, 1))
                clip = torch.stack([kept[index] for index in indices.tolist()], dim=2)[0]
                yield TimedClip(float(start), float(end), clip)

    def _views(self, reader: VideoReader | ArrayReader, num_clips: int, num_crops: int) -> Tensor:
        clips = self.sampling.test_clips(reader.num_frames, reader.fps, num_clips)
        return self.views_of(reader, clips, num_crops)[0]

    def views_of(
        self, reader: VideoReader | ArrayReader, clips: np.ndarray, num_crops: int
    ) -> tuple[Tensor, list[tuple[int, int]]]:
        """Frames (n, T) of an open video -> uint8 (n * num_crops, 3, T, crop, crop), and where the crops lie.

        Each frame is read once. The second are the (top, left) of the ``num_crops`` in pixels of the resized frame.
        """
        read = list(self._frames(reader, np.unique(clips), num_crops))
        frames = {index: crops for index, _, crops in read}
        views = torch.cat([torch.stack([frames[index] for index in clip], dim=2) for clip in clips.tolist()])
        return views, read[0][1]

    def _frames(
        self, reader: VideoReader | ArrayReader, indices: np.ndarray, num_crops: int
    ) -> Iterator[tuple[int, list[tuple[int, int]], Tensor]]:
        """Ascending ``indices``, each with its crops' corners and the crops, uint8 (num_crops, 3, crop, crop).

        A few whole frames are in memory at a time.
        """
        for some in np.split(indices, range(AT_A_TIME, len(indices), AT_A_TIME)):
            if len(some):
                video = torch.from_numpy(reader.read(some)).permute(0, 3, 1, 2)  # (T, H, W, 3) -> (T, 3, H, W)
                corners = spatial_crops(*resized_size(*video.shape[-2:], self.short_side), self.crop, num_crops)
                views = crop_views(video, self.short_side, self.crop, num_crops, self.resize)  # (V, 3, T, crop, crop)
                for index, crops in zip(some.tolist(), views.unbind(2), strict=True):
                    yield index, corners, crops


def _whole_number(told: Mapping[str, Any], key: str) -> int:
    value = told.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = repr(value) if key in told else "none"
        raise DataError(f"preprocessing.{key}: found {found}, must be a whole number of at least 1")
    return value


def _exact(seconds: float) -> Fraction:
    """What a number of seconds stands for: 0.12, which no float is, begins frame 3 of 25 a second and not frame 2."""
    if not math.isfinite(seconds):
        raise DataError(f"seconds: found {seconds}, must be a finite number")
    return Fraction(seconds).limit_denominator(1_000_000)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Fraction)) and not isinstance(value, bool)
