"""Videos as samples: randomly placed clips to train on, all the views of a video to test on.

A sample is a dict in pytorchvideo's vocabulary: video, label, video_name, video_index, clip_index, aug_index; and
``broken``, what kept the video (or the one that this stands in for) from being read, a line each, "" as a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.preprocess import Preprocess
from data_pipelines.random_streams import SUBSTITUTE
from data_pipelines.sampling import Sampling
from data_pipelines.video.reader import SECONDS, open_video

ClipTransform = Callable[[Tensor, int, np.random.Generator], tuple[Tensor, int]]
STAND_INS = 20  # broken videos in a row that are replaced before a run gives up
CENTRAL = -1  # clip of a view that belongs to no clip of the test, but to the only one of a 1x1 test


class ClipDataset(Dataset):
    """Random, augmented clips, one per video and epoch, or several from one decode.

    All randomness of a sample comes from (seed, epoch, index): it is the same in any worker, rank and order. A video
    that cannot be decoded is replaced by another one, which the seed determines too, and named in ``broken``.

    Args:
        manifest: the videos.
        sampling: which frames make up a clip.
        transform: augmentation of a clip, uint8 (T, 3, H, W) -> (3, T, h, w), and its label.
        seed: source of all randomness.
        repeats: clips from one decode of a video (repeated augmentation, Hoffer et al.), differently placed and
            augmented.
        backend, seconds: of `data_pipelines.video.reader.open_video`.
    """

    def __init__(
        self,
        manifest: VideoManifest,
        sampling: Sampling,
        transform: ClipTransform,
        seed: int,
        repeats: int = 1,
        backend: str = "auto",
        seconds: float = SECONDS,
    ) -> None:
        self.manifest, self.sampling, self.transform = manifest, sampling, transform
        self.seed, self.repeats = seed, repeats
        self.backend, self.seconds = backend, seconds

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> list[dict[str, Any]]:
        """The ``repeats`` clips of video ``index`` in ``epoch``, key = (epoch, index): video uint8 (3, T, H, W) each.

        Raises:
            DataError: this video and `STAND_INS` others cannot be decoded.
        """
        epoch, index = key
        broken: list[str] = []
        stand_in, rng = index, np.random.default_rng((self.seed, epoch, index))
        while len(broken) <= STAND_INS:
            try:
                samples = self._clips(stand_in, rng)
                samples[0]["broken"] = "\n".join(broken)
                return samples
            except (VideoDecodeError, MissingDataError) as error:
                broken.append(str(error))
                rng = np.random.default_rng((self.seed, epoch, index, SUBSTITUTE, len(broken)))
                stand_in = int(rng.integers(len(self)))
        raise DataError(f"{len(broken)} videos in a row cannot be read; the last: {broken[-1]}")

    def _clips(self, index: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        path, label = self.manifest.paths[index], int(self.manifest.labels[index])
        with open_video(path, self.backend, self.seconds) as reader:
            clips = [self.sampling.training_clip(reader.num_frames, reader.fps, rng) for _ in range(self.repeats)]
            frames = _channels_first(reader.read(np.concatenate(clips)))
        samples = []
        for number, clip in enumerate(frames.split(self.sampling.frames)):
            video, seen_label = self.transform(clip, label, rng)
            samples.append(
                {
                    "video": video,
                    "label": seen_label,
                    "video_name": path,
                    "video_index": index,
                    "clip_index": number,
                    "aug_index": 0,
                    "broken": "",
                }
            )
        return samples


class MultiViewDataset(Dataset):
    """All test views of a video: num_clips clips of num_crops crops each, from one decode.

    A video that cannot be decoded is never replaced: its views are black and ``broken`` says why.

    Args:
        central: one view more, the only one of a 1x1 test, where the clips miss it (their number is even): the
            central crop of the central window, with `CENTRAL` for its clip.

    Attributes:
        clip_index, aug_index: clip and crop of every view, int64 (V,).
    """

    def __init__(
        self,
        manifest: VideoManifest,
        preprocess: Preprocess,
        num_clips: int,
        num_crops: int,
        backend: str = "auto",
        seconds: float = SECONDS,
        central: bool = False,
    ) -> None:
        self.manifest, self.preprocess = manifest, preprocess
        self.num_clips, self.num_crops = num_clips, num_crops
        self.backend, self.seconds = backend, seconds
        pairs = [(clip, crop) for clip in range(num_clips) for crop in range(num_crops)]
        self.central = central and num_clips % 2 == 0
        if self.central:
            pairs.append((CENTRAL, num_crops // 2))
        self.clip_index, self.aug_index = np.array(pairs, np.int64).T

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The views of one video, clip by clip: video uint8 (V, 3, T, H, W), clip_index, aug_index (V,).

        And where they were taken: frame_indices int64 (V, T), and boxes int64 (V, 3): top, left and size of the
        square crop in pixels of the resized frame.
        """
        path, broken = self.manifest.paths[index], ""
        try:
            video, frames, boxes = self._views(path)
        except (VideoDecodeError, MissingDataError) as error:
            broken = str(error)
            views, length, crop = len(self.clip_index), self.preprocess.sampling.frames, self.preprocess.crop
            video = torch.zeros(views, 3, length, crop, crop, dtype=torch.uint8)
            frames, boxes = np.zeros((views, length), np.int64), np.zeros((views, 3), np.int64)
        return {
            "video": video,
            "label": int(self.manifest.labels[index]),
            "video_name": path,
            "video_index": index,
            "clip_index": torch.from_numpy(self.clip_index),
            "aug_index": torch.from_numpy(self.aug_index),
            "frame_indices": torch.from_numpy(frames),
            "boxes": torch.from_numpy(boxes),
            "broken": broken,
        }

    def _views(self, path: str) -> tuple[Tensor, np.ndarray, np.ndarray]:
        with open_video(path, self.backend, self.seconds) as reader:
            wanted = [self.num_clips, 1] if self.central else [self.num_clips]
            sampled = [self.preprocess.sampling.test_clips(reader.num_frames, reader.fps, count) for count in wanted]
            clips = np.concatenate(sampled)  # (C, T); CENTRAL is the last
            video, corners = self.preprocess.views_of(reader, clips, self.num_crops)
        if self.central:  # of the last clip one crop only
            video = video.unflatten(0, (len(clips), self.num_crops))[self.clip_index, self.aug_index]
        boxes = np.array([(*corners[crop], self.preprocess.crop) for crop in self.aug_index], np.int64)
        return video, clips[self.clip_index], boxes


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, H, W, 3) -> (T, 3, H, W)
