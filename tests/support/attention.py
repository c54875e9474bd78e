"""Attention maps with random or given weights."""

import numpy as np
from PIL import Image

from lookupvivit.visualization.attention_maps import AttentionMaps


def make_maps(
    num_frames=8, side=176, blocks=(0,), tokens=(None,), compressed_size=(4, 4, 4), weights=None, frames=None
):
    """Maps of a random video, one row per block and token.

    Args:
        weights: (R, t, h, w), of any sum; default: random.
        frames: uint8 (T, side, side, 3); default: random, smooth and all different.
    """
    rng = np.random.default_rng(0)
    rows = tuple((block, token) for block in blocks for token in tokens)
    if weights is None:
        weights = rng.random((len(rows), -(-num_frames // 2), 6, 6))
    weights = np.asarray(weights, np.float32)
    if frames is None:
        coarse = rng.integers(0, 256, (num_frames, 8, 8, 3), np.uint8)
        frames = np.stack([np.asarray(Image.fromarray(frame).resize((side, side))) for frame in coarse])
    return AttentionMaps(
        frames=frames,
        weights=weights / weights.sum(axis=(1, 2, 3), keepdims=True),
        rows=rows,
        heads=(0, 1),
        num_heads=2,
        compressed_size=compressed_size,
        probabilities=np.array([0.25, 0.75]),
    )
