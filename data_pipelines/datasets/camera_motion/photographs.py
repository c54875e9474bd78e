"""The photographs that scenes are made of. They ship inside the scikit-image, scikit-learn and matplotlib wheels."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.io.errors import DataError

MAX_SHORT_SIDE = 384  # pixels; larger photographs are reduced


class Photograph(NamedTuple):
    """An image file inside an installed package."""

    package: str
    file: str

    @property
    def subject(self) -> str:
        """The file's name as words: hubble_deep_field.jpg -> "hubble deep field"."""
        return PurePosixPath(self.file).stem.replace("_", " ")


PHOTOGRAPHS: dict[str, tuple[Photograph, ...]] = {
    "train": (
        Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        Photograph("skimage.data", "astronaut.png"),
        Photograph("skimage.data", "brick.png"),
        Photograph("skimage.data", "camera.png"),
        Photograph("skimage.data", "cell.png"),
        Photograph("skimage.data", "clock_motion.png"),
        Photograph("skimage.data", "coins.png"),
        Photograph("skimage.data", "grass.png"),
        Photograph("skimage.data", "hubble_deep_field.jpg"),
        Photograph("skimage.data", "ihc.png"),
        Photograph("skimage.data", "moon.png"),
        Photograph("skimage.data", "motorcycle_left.png"),
        Photograph("skimage.data", "page.png"),
        Photograph("skimage.data", "retina.jpg"),
        Photograph("sklearn.datasets.images", "flower.jpg"),
    ),
    "validation": (
        Photograph("skimage.data", "chelsea.png"),
        Photograph("skimage.data", "coffee.png"),
        Photograph("skimage.data", "gravel.png"),
        Photograph("skimage.data", "rocket.jpg"),
        Photograph("sklearn.datasets.images", "china.jpg"),
    ),
}


@cache
def load_photograph(photograph: Photograph) -> Tensor:
    """Load a photograph as float (3, H, W) in [0, 1], its short side at most `MAX_SHORT_SIDE` pixels.

    Raises:
        DataError: the packages with the photographs are not installed.
    """
    try:
        from skimage.io import imread
    except ImportError:
        raise DataError(
            "camera_motion: scikit-image and scikit-learn, which contain its photographs, are not installed; "
            "pip install 'lookupvivit[demo]'"
        ) from None

    image = imread(str(resources.files(photograph.package) / photograph.file))
    if image.ndim == 2:  # grey
        image = np.repeat(image[..., None], 3, axis=2)
    pixels = torch.from_numpy(image[..., :3].copy()).permute(2, 0, 1).float() / 255
    reduction = min(1.0, MAX_SHORT_SIDE / min(pixels.shape[1:]))
    size = [round(n * reduction) for n in pixels.shape[1:]]
    return F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
