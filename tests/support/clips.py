"""Random clips and generators for tests of transforms."""

import numpy as np
import torch


def rng(seed=0):
    return np.random.default_rng(seed)


def random_clip(frames=4, height=40, width=60, seed=0):
    """Noise, uint8 (T, 3, H, W)."""
    return torch.from_numpy(rng(seed).integers(0, 256, (frames, 3, height, width), dtype=np.uint8))


def draw_from_numpy(monkeypatch, generator):
    """Make torchvision and timm draw from a NumPy generator, so that the same numbers must give the same result."""

    def uniform(tensor, low, high):
        return tensor.fill_(generator.uniform(float(low), float(high)))

    monkeypatch.setattr(torch.Tensor, "uniform_", uniform)
    monkeypatch.setattr(torch, "randint", lambda low, high, size: torch.from_numpy(generator.integers(low, high, size)))
    monkeypatch.setattr(np.random, "randint", lambda low, high, size: generator.integers(low, high, size))
