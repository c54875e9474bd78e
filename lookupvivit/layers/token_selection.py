"""Token keeping: a model processes K of the N lookup tokens of each clip.

Lookup tokens never attend to each other. A model that is given only some of them therefore computes what it would
compute if the clip had no others, at a cost that is proportional to K.

A strategy scores every token, and the K tokens with the highest scores are kept:

    random     random numbers: new ones for every clip in training mode, otherwise the same for all clips
    uniform    a low-discrepancy sequence over the grid: every neighbourhood in space and time keeps an equal share
    motion     the change since the preceding frame of tokens, and the first frame before everything else, as in
               run-length tokenization (Choudhury et al., arXiv 2411.05222) with a fixed number of tokens
    attention  the attention that a token receives in the model's first block
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lookupvivit.layers.patch_embed import as_video, split_into_tubelets
from lookupvivit.sizes import MERGE, Keep, Size, as_keep

KeepLike = float | str | Keep | Tensor | None

# R3 sequence (Roberts, 2018): its steps along the axes are powers of 1 / g, where g^4 = g + 1.
R3 = 1.2207440846057596
FIRST_FRAME = 100.0  # above every change of pixels in [-1, 1]


def select_tokens(
    patches: Tensor, keep: KeepLike, training: bool = False, attention: Callable[[], Tensor] | None = None
) -> Tensor | None:
    """Choose the tokens to keep.

    Args:
        patches: (B, t, h, w, P), the pixels of each token.
        keep: a share of the tokens with or without a strategy, see `lookupvivit.sizes.as_keep`; or indices (B, K) in
            [0, t h w), in any order and without duplicates.
        training: whether an unnamed strategy is "random" instead of "uniform", and what "random" depends on.
        attention: returns the scores (B, N) of the strategy "attention".

    Returns:
        Indices (B, K), in ascending order unless they were given; None to keep all tokens.

    Raises:
        ValueError: neither a share nor indices of this shape.
    """
    batch, *grid = patches.shape[:4]
    if keep is None:
        return None
    if isinstance(keep, Tensor):
        if keep.dim() != 2 or keep.dtype != torch.int64:
            raise ValueError(f"keep: found {keep.dtype} {tuple(keep.shape)}, expected indices, torch.int64 (B, K)")
        return keep
    try:
        share, strategy = as_keep(keep)
    except ValueError as error:
        raise ValueError(f"keep: {error}") from None
    if share == 1 or strategy == MERGE:
        return None
    strategy = strategy or ("random" if training else "uniform")
    if strategy == "attention":
        assert attention is not None
        scores = attention()
    elif strategy == "random":
        scores = random_scores(patches, training)
    else:
        scores = (uniform_scores if strategy == "uniform" else motion_scores)(patches)
    num_kept = num_kept_tokens(share, tuple(int(n) for n in grid))
    return scores.topk(num_kept, dim=1).indices.sort(dim=1).values.expand(batch, -1)


def num_kept_tokens(share: float, grid: tuple[int, ...]) -> int:
    """K, at least 1."""
    return max(1, round(share * math.prod(grid)))


def random_scores(patches: Tensor, training: bool) -> Tensor:
    """(B, N) from torch's global generator in training mode, otherwise (1, N) from a generator with a fixed seed."""
    num_tokens = math.prod(int(n) for n in patches.shape[1:4])
    if training:
        return torch.rand(patches.shape[0], num_tokens, device=patches.device)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, num_tokens, generator=generator, device="cpu").to(patches.device)


def uniform_scores(patches: Tensor) -> Tensor:
    """(1, N), the same for all clips. A smaller share keeps a subset of the tokens of a larger one."""
    t, h, w = (torch.arange(int(n), device=patches.device) for n in patches.shape[1:4])
    sequence = t[:, None, None] / R3 + h[:, None] / R3**2 + w / R3**3  # (t, h, w)
    return (sequence - sequence.floor()).flatten()[None]


def motion_scores(patches: Tensor) -> Tensor:
    """(B, N): mean absolute change of the pixels since the preceding frame of tokens.

    The first frame has no predecessor. It is kept as a whole, so that no place is dropped altogether, or uniformly
    where K is smaller than a frame.
    """
    first = FIRST_FRAME + uniform_scores(patches[:, :1]).expand(patches.shape[0], -1)  # (B, h w)
    return torch.cat([first, _changes(patches).flatten(1)], dim=1)


def _changes(patches: Tensor) -> Tensor:
    """(B, t - 1, h, w)."""
    return (patches[:, 1:] - patches[:, :-1]).abs().mean(-1, dtype=torch.float32)


def share_of_changes(video: Tensor, tubelet: Size, threshold: float) -> Tensor:
    """The share of the tokens of each clip, (B,), that motion-based keeping needs.

    These are the tokens of the first frame, and those that do not repeat their predecessor. The largest share in a
    batch is the ``keep`` at which no clip loses any of them.

    Args:
        video: (B, 3, T, H, W) or (B, 3, H, W).
        tubelet: (t, h, w) of the model.
        threshold: mean absolute change of a pixel, up to which a tubelet counts as repeated.
    """
    patches = split_into_tubelets(as_video(video, tubelet), tubelet)
    num_tokens = math.prod(patches.shape[1:4])
    num_changed = (_changes(patches) > threshold).sum((1, 2, 3))
    return (num_changed + math.prod(patches.shape[2:4])) / num_tokens


def take(grid: Tensor, kept: Tensor) -> Tensor:
    """The kept tokens (B, K, D) of a grid (B, t, h, w, D) or (1, t, h, w, D)."""
    tokens = grid.flatten(1, 3).expand(kept.shape[0], -1, -1)  # (B, N, D)
    return tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def put_back(tokens: Tensor, kept: Tensor | None, grid: Sequence[int], dim: int) -> Tensor:
    """Arrange tokens along ``dim`` on their grid (t, h, w); dropped tokens are 0.

    Args:
        tokens: (..., K, ...), or all tokens where ``kept`` is None.
        kept: indices (B, K) of the tokens, or None.
        grid: (t, h, w).
        dim: the axis of the tokens, not the first one.
    """
    if kept is not None:
        shape = list(tokens.shape)
        index = kept.reshape([-1, *(kept.shape[1] if axis == dim else 1 for axis in range(1, tokens.dim()))])
        shape[dim] = math.prod(grid)
        tokens = tokens.new_zeros(shape).scatter(dim, index.expand_as(tokens), tokens)
    return tokens.unflatten(dim, grid)
