"""Videos as samples: randomly placed clips to train on, all the views of a video to test on.

A sample is a dict in pytorchvideo's vocabulary: video, label, video_name, video_index, clip_index, aug_index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_pipelines.decode import open_video
from data_pipelines.manifest import VideoManifest
from data_pipelines.transforms import crop_views
from data_pipelines.views import frame_indices, random_clip, uniform_clips

ClipTransform = Callable[[Tensor, int, np.random.Generator], tuple[Tensor, int]]


class ClipDataset(Dataset):
    """One random, augmented clip per video and epoch.

    All randomness of a sample comes from (seed, epoch, index): it is the same in any worker, rank and order.
    """

    def __init__(
        self,
        manifest: VideoManifest,
        frames: int,
        stride: int,
        transform: ClipTransform,
        seed: int,
        backend: str = "auto",
    ) -> None:
        self.manifest = manifest
        self.frames, self.stride = frames, stride
        self.transform = transform
        self.seed = seed
        self.backend = backend

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The clip of video ``index`` in ``epoch``, key = (epoch, index): video uint8 (3, T, H, W).

        Raises:
            DataError: the file is missing or cannot be decoded.
        """
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        path = self.manifest.paths[index]
        with open_video(path, self.backend) as reader:
            clip = random_clip(reader.num_frames, reader.fps, self.frames, self.stride, rng)
            frames = reader.read(frame_indices(clip, reader.num_frames, reader.fps, self.frames))
        video, label = self.transform(_channels_first(frames), int(self.manifest.labels[index]), rng)
        return {
            "video": video,
            "label": label,
            "video_name": path,
            "video_index": index,
            "clip_index": clip.clip_index,
            "aug_index": clip.aug_index,
        }


class MultiViewDataset(Dataset):
    """All test views of a video: num_clips clips of num_crops crops each, from one decode."""

    def __init__(
        self,
        manifest: VideoManifest,
        frames: int,
        stride: int,
        short_side: int,
        crop: int,
        num_clips: int,
        num_crops: int,
        backend: str = "auto",
    ) -> None:
        self.manifest = manifest
        self.frames, self.stride = frames, stride
        self.short_side, self.crop = short_side, crop
        self.num_clips, self.num_crops = num_clips, num_crops
        self.backend = backend

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The views of one video, clip by clip: video uint8 (V, 3, T, H, W), clip_index, aug_index (V,).

        Raises:
            DataError: the file is missing or cannot be decoded.
        """
        path = self.manifest.paths[index]
        with open_video(path, self.backend) as reader:
            length, fps = reader.num_frames, reader.fps
            views = uniform_clips(length, fps, self.frames, self.stride, self.num_clips, self.num_crops)
            clips = [frame_indices(view, length, fps, self.frames) for view in views if view.aug_index == 0]
            frames = _channels_first(reader.read(np.concatenate(clips)))
        crops = [
            crop_views(clip, self.short_side, self.crop, self.num_crops) for clip in frames.split(self.frames)
        ]
        return {
            "video": torch.cat(crops),
            "label": int(self.manifest.labels[index]),
            "video_name": path,
            "video_index": index,
            "clip_index": torch.tensor([view.clip_index for view in views]),
            "aug_index": torch.tensor([view.aug_index for view in views]),
        }


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, H, W, 3) -> (T, 3, H, W)
