"""Small image models and pictures for the tests of the image sets."""

import numpy as np
import torch
from PIL import Image

import lookupvivit
from lookupvivit.weights.files import save_model

SIDE = 16
SMALL = {"width": 16, "depth": 1, "num_heads": 2, "input_size": [1, SIDE, SIDE], "tubelet": [1, 8, 8]}
PREPROCESSING = {"frames": 1, "stride": 1, "short_side": 20, "crop": SIDE, "range": [-1, 1]}


def small_model(folder, class_names, name="lookupvit_ti16_3x3", seed=0):
    """A run directory with a random model that has opinions."""
    torch.manual_seed(seed)
    overrides = {**SMALL, **({"compressed_size": [1, 1, 1]} if name.startswith("lookup") else {})}
    model = lookupvivit.create_model(name, len(class_names), **overrides)
    for part, module in model.named_children():
        if part.endswith("head"):
            torch.nn.init.normal_(module.weight)
    told = {"name": name, "num_classes": len(class_names), "overrides": overrides, "preprocessing": PREPROCESSING}
    save_model(folder, model.state_dict(), {**told, "class_names": list(class_names)})
    return folder


def pictures(folder, classes, count=1, seed=0, size=(24, 20)):
    """``count`` JPEGs of noise per class."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
            coarse.resize(size).save(folder / name / f"{number}.JPEG")
    return folder
