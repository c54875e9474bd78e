"""Read images as videos: an image is a video of one frame; in a folder of images, each image is a frame."""

from __future__ import annotations

import io
import os
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.io.errors import VideoDecodeError, first_line
from data_pipelines.io.listing import is_image, sorted_entries
from data_pipelines.io.tar_paths import parse_tar_path
from data_pipelines.video.streams import DEFAULT_FPS

if TYPE_CHECKING:
    from PIL import Image

# Pillow's readers of some other formats start programs (PostScript) or open further files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 2**26  # per image, unless another limit is set; 0.2 GB as RGB


class ImageReader:
    """An image, an image inside a tar, or a folder of images as a `data_pipelines.video.backends.Reader`.

    The frames of a folder are sorted by the numbers in their names. Hidden files are ignored.
    """

    def __init__(self, path: str, max_pixels: int | None = None) -> None:
        self._files, self._max_pixels = [path], max_pixels or MAX_PIXELS
        if os.path.isdir(path):
            names = [entry.name for entry in sorted_entries(path) if is_image(entry.name)]
            self._files = [os.path.join(path, name) for name in sorted(names, key=_numeric_key)]
        if not self._files:
            raise VideoDecodeError("images: found a folder without images")
        self.num_frames, self.fps = len(self._files), DEFAULT_FPS

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `data_pipelines.video.backends.Reader`."""
        images = [_load(self._files[index], self._max_pixels) for index in indices]
        for index, image in zip(indices, images, strict=True):
            if image.shape != images[0].shape:
                raise VideoDecodeError(
                    f"images: {os.path.basename(self._files[index])}: found {image.shape[:2]} (height, width), "
                    f"expected {images[0].shape[:2]} as in {os.path.basename(self._files[indices[0]])}"
                )
        return np.stack(images)

    def close(self) -> None:
        """Do nothing: no file stays open between reads."""


def _load(file: str, max_pixels: int) -> np.ndarray:
    """Read an image, upright: uint8 (H, W, 3)."""
    from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401  # these two register themselves

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata and sizes; they do not name the file
            with Image.open(_content(file), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ValueError(f"found {width} x {height} pixels, expected at most {max_pixels} in total")
                return _upright_rgb(image)
    except Exception as error:  # on corrupt files, Pillow raises any type of error, including MemoryError
        raise VideoDecodeError(f"images: {os.path.basename(file)}: {first_line(error)}") from error


def _content(file: str) -> str | io.BytesIO:
    """Return a path or the bytes of a tar member. Only regular files are accepted, because others may block forever."""
    member = parse_tar_path(file)
    if member is not None:
        return io.BytesIO(member.read())
    if not os.path.isfile(file):
        raise ValueError("expected a regular file")
    return file


def _upright_rgb(image: Image.Image) -> np.ndarray:
    """Apply the EXIF orientation and convert to uint8 (H, W, 3).

    16-bit grey values (depth, thermal and medical images) are scaled to 8 bits. Pillow would clip them at 255.

    Raises:
        ValueError: the values have 32 bits; their range is unknown.
    """
    from PIL import ImageOps

    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode in ("I", "F") and not is_16_bit:
        raise ValueError(f"found 32-bit values (mode {image.mode}), expected 8 or 16 bits")
    upright = ImageOps.exif_transpose(image)
    if not is_16_bit:
        return np.asarray(upright.convert("RGB"))
    warnings.warn("images: found 16-bit grey values; 0 to 65535 is scaled to 0 to 255", stacklevel=2)
    grey = ((np.asarray(upright).astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _numeric_key(name: str) -> list[Any]:
    """Sort key that puts img_2.jpg before img_10.jpg."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
