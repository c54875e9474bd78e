"""Which frames and which crops of a video make up a view: pure functions, exact arithmetic.

The vocabulary is pytorchvideo's: a clip is a `ClipInfo` with start and end in seconds, here exact
Fractions. pytorchvideo 0.1.5 has clip samplers too, but its ConstantClipsPerVideoSampler spaces n clips by
(longest start) / n, not / (n - 1), so its last clip never reaches the end of the video; the published
protocol of ViViT (4 x 3 views) does. Hence these.

A clip of F frames at stride s covers the F * s frame periods from its start, end excluded.

Indices count frames and not time: of a video of variable frame rate, the average rate is taken for its rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from pytorchvideo.data.clip_sampling import ClipInfo

from data_pipelines.io.errors import DataError


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video make up a clip.

    Attributes:
        frames: F, frames of a clip.
        stride: frames from one to the next.
        target_fps: rate that ``stride`` counts in, so that a clip lasts as many seconds in a video of any rate; None
            counts in the video's own frames.
        segments: spread the clip over the whole video instead, one frame from each of F equal segments (TSN, Wang et
            al.); ``stride`` and ``target_fps`` have no meaning then.
    """

    frames: int
    stride: int = 1
    target_fps: Fraction | None = None
    segments: bool = False

    def training_clip(self, num_frames: int, fps: Fraction, rng: np.random.Generator) -> np.ndarray:
        """A random clip's frames, int64 (F,)."""
        if self.segments:
            return random_segments(num_frames, self.frames, rng)
        clip = random_clip(num_frames, fps, self.frames, self._stride(fps), rng)
        return frame_indices(clip, num_frames, fps, self.frames)

    def test_clips(self, num_frames: int, fps: Fraction, num_clips: int) -> np.ndarray:
        """Evenly spaced clips' frames, int64 (num_clips, F)."""
        if self.segments:
            return uniform_segments(num_frames, self.frames, num_clips)
        clips = uniform_clips(num_frames, fps, self.frames, self._stride(fps), num_clips)
        return np.stack([frame_indices(clip, num_frames, fps, self.frames) for clip in clips])

    def clip_from(self, start: int, num_frames: int, fps: Fraction) -> np.ndarray:
        """Frames of the clip that begins at frame ``start``, int64 (F,); segments reach from there to the end."""
        if self.segments:
            return start + uniform_segments(num_frames - start, self.frames, 1)[0]
        clip = _clip(start, fps, self.frames * self._stride(fps), clip_index=0, aug_index=0, is_last=True)
        return frame_indices(clip, num_frames, fps, self.frames)

    def clip_seconds(self, num_frames: int, fps: Fraction) -> Fraction:
        """How long a clip lasts: F strides, or the whole video where that is shorter or is cut into segments."""
        length = num_frames if self.segments else min(num_frames, self.frames * self._stride(fps))
        return Fraction(length) / fps

    def sliding_clips(
        self, num_frames: int, fps: Fraction, seconds_between: Fraction | None = None, num_clips: int | None = None
    ) -> list[tuple[Fraction, Fraction, np.ndarray]]:
        """Clips from the first frame of a video to its last: start and end in seconds, frames int64 (F,).

        They start ``seconds_between`` apart, the last one as late as it can so that no frame is left out; or are
        ``num_clips`` as `uniform_clips` spaces them; or, without either, follow one another. Segments are taken out
        of parts of the video as long as ``seconds_between`` says, or of ``num_clips`` parts.

        Raises:
            DataError: the video has no frame, or a number that is not positive.
        """
        _has_frames(num_frames)
        for name, value in (("seconds_between", seconds_between), ("num_clips", num_clips)):
            if value is not None and value <= 0:
                raise DataError(f"{name}: found {float(value):g}, must be positive")
        if self.segments:
            parts = num_clips or (round(num_frames / (seconds_between * fps)) if seconds_between else 1)
            parts = min(max(parts, 1), num_frames)
            spans = [(i * num_frames // parts, (i + 1) * num_frames // parts) for i in range(parts)]
            return [(start / fps, end / fps, self.clip_from(0, end - start, fps) + start) for start, end in spans]
        length = self.frames * self._stride(fps)
        if num_clips:
            clips = uniform_clips(num_frames, fps, self.frames, self._stride(fps), num_clips)
            starts = [int(clip.clip_start_sec * fps) for clip in clips]
        else:
            latest, step = math.floor(max(0, num_frames - length)), seconds_between * fps if seconds_between else length
            starts = sorted({latest, *(math.floor(i * step) for i in range(math.ceil(latest / step)))})
        ends = [min(start + length, num_frames) for start in starts]
        return [(s / fps, e / fps, self.clip_from(s, num_frames, fps)) for s, e in zip(starts, ends, strict=True)]

    def _stride(self, fps: Fraction) -> int | Fraction:
        return self.stride if self.target_fps is None else self.stride * fps / self.target_fps


def random_clip(
    num_frames: int, fps: Fraction, frames: int, stride: int | Fraction, rng: np.random.Generator
) -> ClipInfo:
    """A training clip: any start from which the last sampled frame still lies in the video, uniformly.

    The last possible start puts the clip's last frame on the video's last frame (dmvr,
    processors.sample_sequence). A video too short for that starts at 0 and is repeated by `frame_indices`.
    """
    latest = max(0, num_frames - math.floor((frames - 1) * stride) - 1)
    start = int(rng.integers(latest, endpoint=True))
    return _clip(start, fps, frames * stride, clip_index=0, aug_index=0, is_last=True)


def uniform_clips(
    num_frames: int, fps: Fraction, frames: int, stride: int | Fraction, num_clips: int, num_crops: int = 1
) -> list[ClipInfo]:
    """Test views, clip by clip and crop by crop within a clip (dmvr, processors.sample_linspace_sequence).

    Starts are linspace(0, max(0, num_frames - frames * stride), num_clips), truncated; a single clip is the
    central window.

    Returns:
        num_clips * num_crops clips; ``aug_index`` numbers the crop.
    """
    if num_clips < 1 or num_crops < 1:
        raise DataError(f"num_clips, num_crops: {num_clips} and {num_crops} found; both must be at least 1")
    latest = max(0, num_frames - frames * stride)
    starts = [latest // 2] if num_clips == 1 else [i * latest // (num_clips - 1) for i in range(num_clips)]
    views = [(clip, crop) for clip in range(num_clips) for crop in range(num_crops)]
    return [
        _clip(starts[clip], fps, frames * stride, clip, crop, is_last=(clip, crop) == views[-1]) for clip, crop in views
    ]


def random_segments(num_frames: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A random frame out of each of ``frames`` equal segments of the video, int64 (frames,), ascending.

    Where the video has fewer frames than segments, frames are repeated.
    """
    _has_frames(num_frames)
    return ((np.arange(frames) + rng.random(frames)) * num_frames / frames).astype(np.int64).clip(max=num_frames - 1)


def uniform_segments(num_frames: int, frames: int, num_clips: int) -> np.ndarray:
    """Of each of ``frames`` equal segments, ``num_clips`` evenly spaced frames: int64 (num_clips, frames).

    Clip c of C reads every segment at (c + 1/2) / C of its length: one clip reads the middles, and no two clips read
    the same frames unless the segments are shorter than C frames.
    """
    _has_frames(num_frames)
    if num_clips < 1:
        raise DataError(f"num_clips: {num_clips} found; it must be at least 1")
    ticks = np.arange(frames)[None] * 2 * num_clips + 2 * np.arange(num_clips)[:, None] + 1  # exact, in 1 / (2 C)
    return ticks * num_frames // (2 * num_clips * frames)


def _has_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise DataError(f"num_frames: {num_frames} found; a video needs at least one frame to be viewed")


def _clip(
    start: int, fps: Fraction, length: int | Fraction, clip_index: int, aug_index: int, is_last: bool
) -> ClipInfo:
    return ClipInfo(Fraction(start) / fps, Fraction(start + length) / fps, clip_index, aug_index, is_last)


def frame_indices(clip: ClipInfo, num_frames: int, fps: Fraction, frames: int) -> np.ndarray:
    """Indices of ``frames`` frames spread evenly from the clip's start to its end, int64 (frames,).

    A clip longer than what is left of the video goes on from the first frame.

    Raises:
        DataError: the video has no frame.
    """
    _has_frames(num_frames)
    start = Fraction(clip.clip_start_sec) * fps
    step = (Fraction(clip.clip_end_sec) * fps - start) / frames
    return np.array([math.floor(start + i * step) % num_frames for i in range(frames)], dtype=np.int64)


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at ``short_side`` and the ratio kept; fractions are cut off."""
    shorter = min(height, width)
    return height * short_side // shorter, width * short_side // shorter


def spatial_crops(height: int, width: int, crop: int, num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of square crops: 1 is the centre; 3 go along the longer side, both ends included.

    Centres are rounded up, as in SlowFast's and scenic's three-crop testing.

    Raises:
        DataError: a crop larger than the frame, or another number of crops.
    """
    if crop > min(height, width):
        raise DataError(f"crop: {crop} does not fit into frames of {height} x {width} (height x width)")
    top, left = (height - crop + 1) // 2, (width - crop + 1) // 2
    if num_crops == 1:
        return [(top, left)]
    if num_crops != 3:
        raise DataError(f"num_crops: {num_crops} found; 1 (centre) or 3 (along the longer side) are defined")
    if width >= height:
        return [(top, 0), (top, left), (top, width - crop)]
    return [(0, left), (top, left), (height - crop, left)]
