"""Small image models, and folders of images for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support.saved_models import save_random_model

SIDE = 16
PREPROCESSING = {"frames": 1, "stride": 1, "short_side": 20, "crop": SIDE, "range": [-1, 1]}


def small_model(folder: Path, class_names: Sequence[str], name: str = "lookupvit_ti16_3x3", seed: int = 0) -> Path:
    """Save a small random image model like a run directory; returns ``folder``."""
    options: dict[str, Any] = {"tubelet": [1, 8, 8]}
    if name.startswith("lookup"):
        options["compressed_size"] = [1, 1, 1]
    return save_random_model(folder, name, class_names, PREPROCESSING, seed, **options)


def write_images(
    folder: Path, classes: Sequence[str], count: int = 1, seed: int = 0, size: tuple[int, int] = (24, 20)
) -> Path:
    """Write ``count`` smooth random JPEGs of ``size`` (width, height) per class into subfolders; returns ``folder``."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
            coarse.resize(size).save(folder / name / f"{number}.JPEG")
    return folder
