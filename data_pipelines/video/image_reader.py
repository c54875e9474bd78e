"""Images as videos: one image is a video of one frame, a folder of images a video of several."""

from __future__ import annotations

import io
import os
import re
from typing import Any

import numpy as np

from data_pipelines.io.errors import VideoDecodeError, first_line
from data_pipelines.io.listing import is_image
from data_pipelines.io.tar_paths import parse_tar_path
from data_pipelines.video.streams import DEFAULT_FPS


class ImageReader:
    """An image, an image inside a tar, or a folder of images as a `data_pipelines.video.backends.Reader`.

    The frames of a folder are in the order of the numbers in their names.
    """

    def __init__(self, path: str) -> None:
        self._files = [path]
        if os.path.isdir(path):
            names = sorted(filter(is_image, os.listdir(path)), key=_numeric_key)
            self._files = [os.path.join(path, name) for name in names]
        if not self._files:
            raise VideoDecodeError("images: found a folder without images")
        self.num_frames, self.fps = len(self._files), DEFAULT_FPS

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `data_pipelines.video.backends.Reader`."""
        images = [_load(self._files[index]) for index in indices]
        for index, image in zip(indices, images, strict=True):
            if image.shape != images[0].shape:
                raise VideoDecodeError(
                    f"images: {os.path.basename(self._files[index])}: found {image.shape[:2]} (height, width), "
                    f"expected {images[0].shape[:2]} as in {os.path.basename(self._files[indices[0]])}"
                )
        return np.stack(images)

    def close(self) -> None:
        """Do nothing: no file stays open between reads."""


def _load(file: str) -> np.ndarray:
    """Read an image, upright: uint8 (H, W, 3)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    member = parse_tar_path(file)
    try:
        with Image.open(file if member is None else io.BytesIO(member.read())) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoDecodeError(f"images: {os.path.basename(file)}: {first_line(error)}") from error


def _numeric_key(name: str) -> list[Any]:
    """Sort key that puts img_2.jpg before img_10.jpg."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
