"""Small image models, and folders of images for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import lookupvivit
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


def read_unresized(file: Path) -> torch.Tensor:
    """An image that already has the model's size as model input (3, 1, H, W)."""
    pixels = np.asarray(Image.open(file).convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[:, None].float() / 127.5 - 1


@torch.no_grad()
def logits_one_by_one(run: Path, files: Iterable[str | Path], resize: bool = True) -> np.ndarray:
    """The logits (N, K) of a saved model, one image at a time; without ``resize``, images have the model's size."""
    model: Any = lookupvivit.load_model(run)
    read = lookupvivit.preprocess_of(model) if resize else read_unresized
    return torch.cat([model(read(file)[None]).logits for file in files]).numpy()
