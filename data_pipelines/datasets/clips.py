"""Datasets of videos: random clips for training, and all views of each video for testing.

A sample is a dict with pytorchvideo's keys (video, label, video_name, video_index, clip_index, aug_index) and
``failed``, which has the reason for each video that could not be read, one per line. It is "" if none failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_pipelines.datasets.manifest import CENTRE_CLIP, VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.io.text import one_line
from data_pipelines.preprocess import Preprocess
from data_pipelines.random_streams import SUBSTITUTE
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.first_half import FirstHalf
from data_pipelines.video.reader import TIMEOUT, open_video

Label = int | np.ndarray  # a class id; or, where videos may have several classes, float32 (K,) of zeros and ones
ClipTransform = Callable[[Tensor, Label, np.random.Generator], tuple[Tensor, Label]]
MAX_SUBSTITUTES = 20  # number of consecutive substitutes that may fail before an error is raised


class ClipDataset(Dataset):
    """Random, augmented clips for training. Each epoch has ``repeats`` clips of every video, cut from one decode.

    A sample's randomness depends on (seed, epoch, index) alone, so it is the same in every worker, rank and order. A
    video that cannot be decoded is replaced by a substitute drawn from the same seed and is reported in ``failed``.

    Args:
        manifest: the videos.
        sampling: selects the frames of a clip.
        transform: augments a clip, uint8 (T, 3, H, W) -> (3, T, h, w), and may change its label. After a `FirstHalf`,
            samples also have ``rng``, the generator for the second; it suits one clip per video only.
        seed: source of all randomness.
        repeats: clips per decoded video (repeated augmentation, Hoffer et al. 2020), each placed and augmented
            independently.
        backend, timeout, max_pixels: see `data_pipelines.video.reader.open_video`.
    """

    def __init__(
        self,
        manifest: VideoManifest,
        sampling: Sampling,
        transform: ClipTransform,
        seed: int,
        repeats: int = 1,
        backend: str = "auto",
        timeout: float = TIMEOUT,
        max_pixels: int | None = None,
    ) -> None:
        self.manifest, self.sampling, self.transform = manifest, sampling, transform
        self.seed, self.repeats = seed, repeats
        self.backend, self.timeout, self.max_pixels = backend, timeout, max_pixels
        if isinstance(transform, FirstHalf) and repeats > 1:
            raise DataError(f"repeats: found {repeats}, expected 1 with the first half of an augmentation")

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> list[dict[str, Any]]:
        """Return ``repeats`` samples of the video ``index`` in ``epoch``; ``video`` is uint8 (3, T, H, W).

        Args:
            key: (epoch, index).

        Raises:
            DataError: neither this video nor any of `MAX_SUBSTITUTES` substitutes can be decoded.
        """
        epoch, index = key
        failures: list[str] = []
        video_index, rng = index, np.random.default_rng((self.seed, epoch, index))
        while len(failures) <= MAX_SUBSTITUTES:
            try:
                samples = self._clips(video_index, rng)
            except (VideoDecodeError, MissingDataError) as error:
                failures.append(one_line(error))
                rng = np.random.default_rng((self.seed, epoch, index, SUBSTITUTE, len(failures)))
                video_index = int(rng.integers(len(self)))
            else:
                samples[0]["failed"] = "\n".join(failures)
                return samples
        raise DataError(f"{failures[-1]}; found {len(failures)} consecutive {self.manifest.unit}s that cannot be read")

    def _clips(self, index: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        path, label = self.manifest.paths[index], self.manifest.label(index)
        with open_video(path, self.backend, self.timeout, self.max_pixels) as reader:
            clips = [self.sampling.training_clip(reader.num_frames, reader.fps, rng) for _ in range(self.repeats)]
            frames = _channels_first(reader.read(np.concatenate(clips)))
        samples: list[dict[str, Any]] = []
        for clip_index, clip in enumerate(frames.split(self.sampling.frames)):
            video, clip_label = self.transform(clip, label, rng)
            samples.append(
                {
                    "video": video,
                    "label": clip_label,
                    "video_name": path,
                    "video_index": index,
                    "clip_index": clip_index,
                    "aug_index": 0,
                    "failed": "",
                }
            )
        if isinstance(self.transform, FirstHalf):
            samples[0]["rng"] = rng
        return samples


class MultiViewDataset(Dataset):
    """All test views of each video, cut from one decode: ``num_clips`` clips times ``num_crops`` crops.

    A video that cannot be decoded is not replaced. Its views are black, and ``failed`` contains the reason.

    Args:
        centre_view: append the only view of a 1x1 test (the centre crop of the centre clip) with the clip index
            `CENTRE_CLIP` when ``num_clips`` is even. With an odd number of clips, the views already include it.
        backend, timeout, max_pixels: see `data_pipelines.video.reader.open_video`.

    Attributes:
        clip_index, aug_index: clip and crop of each of the V views, int64 (V,).
    """

    def __init__(
        self,
        manifest: VideoManifest,
        preprocess: Preprocess,
        num_clips: int,
        num_crops: int,
        backend: str = "auto",
        timeout: float = TIMEOUT,
        centre_view: bool = False,
        max_pixels: int | None = None,
    ) -> None:
        self.manifest, self.preprocess = manifest, preprocess
        self.num_clips, self.num_crops = num_clips, num_crops
        self.backend, self.timeout, self.max_pixels = backend, timeout, max_pixels
        pairs = [(clip, crop) for clip in range(num_clips) for crop in range(num_crops)]
        self.centre_view = centre_view and num_clips % 2 == 0
        if self.centre_view:
            pairs.append((CENTRE_CLIP, num_crops // 2))
        self.clip_index, self.aug_index = np.array(pairs, np.int64).T

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the V views of one video: video uint8 (V, 3, T, H, W), clip_index and aug_index (V,).

        The sample also has the positions of the views: frame_indices int64 (V, T), and boxes int64 (V, 3). A box is the
        top, left and size of the square crop in pixels of the resized frame.
        """
        path, failed = self.manifest.paths[index], ""
        try:
            video, frames, boxes = self._views(path)
        except (VideoDecodeError, MissingDataError) as error:
            failed = one_line(error)
            views, length, crop = len(self.clip_index), self.preprocess.sampling.frames, self.preprocess.crop
            video = torch.zeros(views, 3, length, crop, crop, dtype=torch.uint8)
            frames, boxes = np.zeros((views, length), np.int64), np.zeros((views, 3), np.int64)
        return {
            "video": video,
            "label": self.manifest.label(index),
            "video_name": path,
            "video_index": index,
            "clip_index": torch.from_numpy(self.clip_index),
            "aug_index": torch.from_numpy(self.aug_index),
            "frame_indices": torch.from_numpy(frames),
            "boxes": torch.from_numpy(boxes),
            "failed": failed,
        }

    def _views(self, path: str) -> tuple[Tensor, np.ndarray, np.ndarray]:
        with open_video(path, self.backend, self.timeout, self.max_pixels) as reader:
            clip_counts = [self.num_clips, 1] if self.centre_view else [self.num_clips]
            sampling = self.preprocess.sampling
            sampled = [sampling.test_clips(reader.num_frames, reader.fps, count) for count in clip_counts]
            clips = np.concatenate(sampled)  # (C, T); CENTRE_CLIP = -1 indexes the last one
            video, corners = self.preprocess.views_of(reader, clips, self.num_crops)
        if self.centre_view:  # the centre clip has a single crop
            video = video.unflatten(0, (len(clips), self.num_crops))[self.clip_index, self.aug_index]
        boxes = np.array([(*corners[crop], self.preprocess.crop) for crop in self.aug_index], np.int64)
        return video, clips[self.clip_index], boxes


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, H, W, 3) -> (T, 3, H, W)
