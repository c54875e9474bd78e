"""Which frames make up a clip, and where its spatial crops lie: pure functions with exact arithmetic.

A clip of F frames at stride s covers the F * s frame periods from its start, end excluded.

Indices count frames, not time: a video with a variable frame rate is treated as if its average rate were constant.
Clips are placed as in dmvr (processors.py), because ViViT was trained and tested with it. pytorchvideo's clip samplers
differ: the last of n clips of its ConstantClipsPerVideoSampler does not reach the end of the video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data_pipelines.io.errors import DataError

MAX_RATE_DENOMINATOR = 10_000  # enough for 30000/1001 and 24000/1001


class ClipSpan(NamedTuple):
    """A clip in its video: start and end in seconds from the first frame, and its frame indices, int64 (F,)."""

    start: Fraction
    end: Fraction
    indices: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video make up a clip.

    Attributes:
        frames: number of frames F in a clip.
        stride: distance between neighbouring frames of a clip, in frames of the video.
        target_fps: if set, ``stride`` counts frames at this rate, so that clips last equally long in videos of any
            rate. Taken as the nearest fraction with a denominator up to `MAX_RATE_DENOMINATOR`.
        segments: spread the clip over the whole video: one frame from each of F equal segments (TSN, Wang et al.,
            2016). ``stride`` and ``target_fps`` are then unused.

    Raises:
        DataError: a value out of range.
    """

    frames: int
    stride: int = 1
    target_fps: float | None = None
    segments: bool = False

    def __post_init__(self) -> None:
        require_positive_integer("frames", self.frames)
        require_positive_integer("stride", self.stride)
        rate = self.target_fps
        if rate is not None:
            is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
            if not is_number or not math.isfinite(rate) or rate <= 0:
                raise DataError(f"target_fps: found {rate!r}, expected a number above 0")

    def training_clip(self, num_frames: int, fps: Fraction, rng: np.random.Generator) -> np.ndarray:
        """Frame indices of a randomly placed clip, int64 (F,)."""
        if self.segments:
            return random_segments(num_frames, self.frames, rng)
        stride = self._stride(fps)
        start = random_start(num_frames, self.frames, stride, rng)
        return frame_indices(start, self.frames, stride, num_frames)

    def test_clips(self, num_frames: int, fps: Fraction, num_clips: int) -> np.ndarray:
        """Frame indices of evenly spaced clips, int64 (num_clips, F)."""
        if self.segments:
            return uniform_segments(num_frames, self.frames, num_clips)
        stride = self._stride(fps)
        starts = uniform_starts(num_frames, self.frames, stride, num_clips)
        return np.stack([frame_indices(start, self.frames, stride, num_frames) for start in starts])

    def clip_from(self, start: int, num_frames: int, fps: Fraction) -> np.ndarray:
        """Frame indices of the clip that starts at frame ``start``, int64 (F,).

        Segments cover the video from there to its end.
        """
        if self.segments:
            return start + uniform_segments(num_frames - start, self.frames, num_clips=1)[0]
        return frame_indices(start, self.frames, self._stride(fps), num_frames)

    def clip_seconds(self, num_frames: int, fps: Fraction) -> Fraction:
        """Duration of a clip in seconds: F strides, or the whole video if it is shorter or cut into segments."""
        length = num_frames if self.segments else min(num_frames, self.clip_periods(fps))
        return Fraction(length) / fps

    def clip_periods(self, fps: Fraction) -> int | Fraction:
        """Duration of a clip in frame periods: F strides. Segments have no duration of their own."""
        return self.frames * self._stride(fps)

    def sliding_clips(self, num_frames: int, fps: Fraction, seconds_between: Fraction | None = None) -> list[ClipSpan]:
        """Clips from the first frame of a video to the last, in order of time.

        Args:
            num_frames: number of frames of the video.
            fps: its frame rate.
            seconds_between: time between the starts of two clips, by default the duration of a clip. The last clip
                starts as late as possible, so that the end of the video is covered. With segments, each clip covers a
                part of the video of about this duration.

        Raises:
            DataError: the video has no frame, or ``seconds_between`` is not positive.
        """
        _require_frames(num_frames)
        if seconds_between is not None and seconds_between <= 0:
            raise DataError(f"seconds_between: found {float(seconds_between):g}, expected a number above 0")
        if self.segments:
            return self._segmented_parts(num_frames, fps, seconds_between)

        length = self.clip_periods(fps)
        latest = math.floor(max(0, num_frames - length))
        step = seconds_between * fps if seconds_between else length
        earlier = [math.floor(i * step) for i in range(math.ceil(latest / step))]
        return [
            ClipSpan(
                start=start / fps,
                end=min(start + length, num_frames) / fps,
                indices=self.clip_from(start, num_frames, fps),
            )
            for start in sorted({*earlier, latest})
        ]

    def _segmented_parts(self, num_frames: int, fps: Fraction, seconds_between: Fraction | None) -> list[ClipSpan]:
        """Cut the video into parts of equal length; a clip of each."""
        num_parts = round(num_frames / (seconds_between * fps)) if seconds_between else 1
        num_parts = min(max(num_parts, 1), num_frames)
        bounds = [i * num_frames // num_parts for i in range(num_parts + 1)]
        return [
            ClipSpan(start / fps, end / fps, indices=start + self.clip_from(0, end - start, fps))
            for start, end in pairwise(bounds)
        ]

    def _stride(self, fps: Fraction) -> int | Fraction:
        """The stride in frames of a video with ``fps``."""
        if self.target_fps is None:
            return self.stride
        return self.stride * fps / Fraction(self.target_fps).limit_denominator(MAX_RATE_DENOMINATOR)


def random_start(num_frames: int, frames: int, stride: int | Fraction, rng: np.random.Generator) -> int:
    """First frame of a training clip, uniform over all starts for which the clip's last frame lies in the video.

    The last possible start puts the clip's last frame on the video's last frame (dmvr, processors.sample_sequence).
    A video that is too short for a clip starts at 0, and `frame_indices` repeats it.
    """
    latest = max(0, num_frames - math.floor((frames - 1) * stride) - 1)
    return int(rng.integers(latest, endpoint=True))


def uniform_starts(num_frames: int, frames: int, stride: int | Fraction, num_clips: int) -> list[int]:
    """First frames of evenly spaced test clips (dmvr, processors.sample_linspace_sequence).

    They are linspace(0, max(0, num_frames - frames * stride), num_clips), truncated. A single clip lies in the centre.
    """
    _require_clips(num_clips)
    latest = max(0, num_frames - frames * stride)
    if num_clips == 1:
        return [int(latest // 2)]
    return [int(i * latest // (num_clips - 1)) for i in range(num_clips)]


def frame_indices(start: int, frames: int, stride: int | Fraction, num_frames: int) -> np.ndarray:
    """Indices of ``frames`` frames from ``start`` on, int64 (frames,).

    A clip that reaches past the end of the video continues at its first frame.

    Raises:
        DataError: the video has no frame.
    """
    _require_frames(num_frames)
    return np.array([math.floor(start + i * stride) % num_frames for i in range(frames)], dtype=np.int64)


def random_segments(num_frames: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of ``frames`` equal segments of the video, ascending, int64 (frames,).

    Frames repeat if the video has fewer frames than segments.
    """
    _require_frames(num_frames)
    positions = (np.arange(frames) + rng.random(frames)) * num_frames / frames
    return positions.astype(np.int64).clip(max=num_frames - 1)


def uniform_segments(num_frames: int, frames: int, num_clips: int) -> np.ndarray:
    """One frame from each of ``frames`` equal segments of the video, for each of several clips.

    Clip c of C reads every segment at (c + 1/2) / C of its length. A single clip therefore reads the middle frames, and
    two clips differ unless the segments are shorter than C frames.

    Returns:
        Frame indices, int64 (num_clips, frames).
    """
    _require_frames(num_frames)
    _require_clips(num_clips)
    segment, clip = np.arange(frames)[None, :], np.arange(num_clips)[:, None]
    # (segment + (clip + 1/2) / num_clips) * num_frames / frames, in integers: exact
    return (2 * num_clips * segment + 2 * clip + 1) * num_frames // (2 * num_clips * frames)


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after scaling the shorter side to ``short_side``; the longer side is rounded down."""
    shorter = min(height, width)
    return height * short_side // shorter, width * short_side // shorter


def spatial_crops(height: int, width: int, crop: int, num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of square crops from a frame that is at least as large.

    One crop lies in the centre. Three lie along the longer side: at its start, centre and end. Central offsets are
    rounded up, as in the three-crop tests of SlowFast and scenic.

    Raises:
        DataError: another number of crops.
    """
    top, left = (height - crop + 1) // 2, (width - crop + 1) // 2
    if num_crops == 1:
        return [(top, left)]
    if num_crops != 3:
        raise DataError(f"num_crops: found {num_crops}, expected 1 (centre) or 3 (along the longer side)")
    if width >= height:
        return [(top, 0), (top, left), (top, width - crop)]
    return [(0, left), (top, left), (height - crop, left)]


def require_crop_within(crop: int, short_side: int) -> None:
    """Raise a DataError unless a square crop fits into frames of this shorter side, in pixels."""
    if crop > short_side:
        raise DataError(f"crop: found {crop}, expected at most short_side = {short_side}")


def require_positive_integer(name: str, value: object) -> None:
    """Raise a DataError unless ``value`` is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"{name}: found {value!r}, expected a whole number of at least 1")


def _require_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise DataError(f"num_frames: found {num_frames}, expected a video of at least 1 frame")


def _require_clips(num_clips: int) -> None:
    if num_clips < 1:
        raise DataError(f"num_clips: found {num_clips}, expected at least 1")
