"""The preprocessing of model.json in transformers' interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoVideoProcessor, BaseImageProcessor, BatchFeature
from transformers.video_processing_utils import BaseVideoProcessor

from data_pipelines.preprocess import Preprocess, Video, open_any
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.transformers.configuration import REMOTE_CODE, AutoClassMixin


class _Processor(AutoClassMixin):
    """The preprocessing of model.json in transformers' interface.

    Args:
        preprocessing: see `data_pipelines.preprocess.Preprocess.from_dict`.
    """

    auto_class: type

    def __init__(self, preprocessing: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.preprocessing = Preprocess.from_dict(preprocessing).to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the processor's JSON file."""
        name, auto_class = type(self).__name__, self.auto_class.__name__
        return {
            f"{'video' if auto_class == 'AutoVideoProcessor' else 'image'}_processor_type": name,
            "auto_map": {auto_class: f"{REMOTE_CODE}.{name}"},
            "preprocessing": self.preprocessing,
        }


class LookupViTVideoProcessor(_Processor, BaseVideoProcessor):
    """Decodes and preprocesses videos."""

    auto_class = AutoVideoProcessor
    model_input_names = ["pixel_values"]  # noqa: RUF012  # as in the parent

    def preprocess(
        self,
        videos: Any,
        num_frames: int | None = None,
        do_sample_frames: bool = True,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Return the central clip of each video as ``pixel_values`` (B, T, 3, H, W) in [-1, 1].

        Args:
            videos: one or several of: the path of a video or of a folder of images; uint8 frames (T, H, W, 3) or
                (T, 3, H, W); a list of frames.
            num_frames: frames of a clip, instead of those of the preprocessing.
            do_sample_frames: False uses all frames.
            return_tensors: as in other processors.
        """
        preprocess = Preprocess.from_dict(self.preprocessing | ({"frames": num_frames} if num_frames else {}))
        clips = []
        for video in _as_list(videos, num_axes=4):
            with open_any(_as_video(video)) as reader:
                if do_sample_frames:
                    clip = preprocess.clip(reader)
                else:
                    views, _ = preprocess.views_of(reader, np.arange(reader.num_frames)[None], num_crops=1)
                    clip = views[0]
            clips.append(to_model_input(clip).transpose(0, 1))  # (3, T, H, W) -> (T, 3, H, W)
        return BatchFeature({"pixel_values": torch.stack(clips)}, tensor_type=return_tensors)


class LookupViTImageProcessor(_Processor, BaseImageProcessor):
    """Decodes and preprocesses images."""

    auto_class = AutoImageProcessor
    model_input_names = ["pixel_values"]  # noqa: RUF012  # as in the parent

    def preprocess(self, images: Any, return_tensors: str | None = "pt") -> BatchFeature:
        """Return each image as ``pixel_values`` (B, 3, H, W) in [-1, 1].

        Args:
            images: one or several of: a path; uint8 pixels (H, W, 3) or (3, H, W); a PIL image.
            return_tensors: as in other processors.
        """
        preprocess = Preprocess.from_dict(self.preprocessing)
        pixels = [preprocess(_channels_last(image))[:, 0] for image in _as_list(images, num_axes=3)]
        return BatchFeature({"pixel_values": torch.stack(pixels)}, tensor_type=return_tensors)


def _as_list(inputs: Any, num_axes: int) -> list[Any]:
    """A list of inputs, each of which is an array of ``num_axes`` axes, a path, an image, or a list of frames."""
    is_one = isinstance(inputs, str | Path | Image.Image) or getattr(inputs, "ndim", None) == num_axes
    is_frames = num_axes == 4 and isinstance(inputs, Sequence) and _is_frame(inputs[0])
    return [inputs] if is_one or is_frames else list(inputs)


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or getattr(value, "ndim", None) == 3


def _as_video(video: Any) -> Video:
    if isinstance(video, Sequence) and not isinstance(video, str):
        video = np.stack([np.asarray(f.convert("RGB") if isinstance(f, Image.Image) else f) for f in video])
    return _channels_last(video)


def _channels_last(pixels: Any) -> Any:
    """Move the channels of an array (..., 3, H, W) to the end; anything else is returned as it is."""
    if isinstance(pixels, np.ndarray | Tensor) and pixels.ndim >= 3 and pixels.shape[-1] != 3 == pixels.shape[-3]:
        return torch.as_tensor(pixels).movedim(-3, -1)
    return pixels
