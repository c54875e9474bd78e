"""Strategies of token keeping, and token merging against an implementation with explicit loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from lookupvivit.layers.token_merging import TokenMerging, match
from lookupvivit.layers.token_selection import put_back, select_tokens, share_of_changes, take
from lookupvivit.layers.vit_block import ViTBlock

GRID = (4, 6, 5)


@pytest.fixture
def patches():
    return torch.randn(3, *GRID, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("strategy", ["random", "uniform", "motion", "attention"])
@pytest.mark.parametrize("share", [0.004, 0.3, 0.5, 0.99])
def test_every_strategy_keeps_k_different_tokens_of_each_clip(strategy, share, patches):
    kept = select_tokens(patches, f"{strategy}:{share}", attention=lambda: patches.flatten(1, 3)[..., 0])
    assert kept.shape == (3, max(1, round(share * math.prod(GRID))))
    assert (kept.diff(dim=1) > 0).all() and kept.min() >= 0 and kept.max() < math.prod(GRID)


def test_everything_is_kept_with_a_share_of_one(patches):
    assert select_tokens(patches, None) is None and select_tokens(patches, 1) is None
    indices = torch.tensor([[3, 1], [0, 5], [2, 4]])
    assert select_tokens(patches, indices) is indices


def test_random_tokens_are_new_in_training_and_fixed_in_evaluation(patches):
    torch.manual_seed(0)
    first, second = (select_tokens(patches, 0.5, training=True) for _ in range(2))
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    torch.manual_seed(0)
    assert torch.equal(select_tokens(patches, 0.5, training=True), first)
    fixed = select_tokens(patches, "random:0.5")
    assert torch.equal(fixed[0], fixed[1]) and torch.equal(fixed, select_tokens(patches, "random:0.5"))


def test_uniform_tokens_cover_every_place_and_time_and_are_nested():
    patches = torch.zeros(1, 16, 14, 14, 1)
    smaller: set[int] = set()
    for share in (0.1, 0.3, 0.5):
        kept = select_tokens(patches, share)
        mask = torch.zeros(16 * 14 * 14).index_fill(0, kept[0], 1).view(16, 14, 14)
        assert smaller < (smaller := set(kept[0].tolist()))
        per_frame, per_place = mask.sum((1, 2)), mask.sum(0)
        assert (per_frame / 196 - share).abs().max() < 0.03
        assert per_place.min() >= math.floor(16 * share) - 1 and per_place.max() <= math.ceil(16 * share) + 1


def test_motion_keeps_the_first_frame_and_the_largest_changes(patches):
    kept = select_tokens(patches, "motion:0.5")
    frames = patches.double().numpy()
    for clip, indices in zip(frames, kept.tolist(), strict=True):
        change = np.abs(clip[1:] - clip[:-1]).mean(-1).ravel()
        largest = 30 + np.argsort(-change)[:30]
        assert indices == [*range(30), *sorted(largest)]
    within_first_frame = select_tokens(patches, "motion:0.1")
    assert within_first_frame.max() < 30


def test_the_share_of_changes_counts_the_first_frame_and_tubelets_that_do_not_repeat():
    video = torch.zeros(2, 3, 8, 16, 16)
    video[1, :, 4:, :8, :8] = 1.0  # one of 2 x 2 places changes once, between the second and the third of 4 tubelets
    assert share_of_changes(video, (2, 8, 8), threshold=0.1).tolist() == [4 / 16, 5 / 16]
    kept = select_tokens(torch.zeros(1, 4, 2, 2, 1), "motion:0.25")
    assert kept.tolist() == [[0, 1, 2, 3]]


def test_take_and_put_back(patches):
    kept = select_tokens(patches, "motion:0.4")
    restored = put_back(take(patches, kept), kept, GRID, dim=1)
    mask = torch.zeros(3, math.prod(GRID), 1).scatter(1, kept[..., None], 1.0).view(3, *GRID, 1)
    assert torch.equal(restored, patches * mask)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (0, "found 0, expected a share"),
        (1.5, "found 1.5"),
        ("motion", "found 'motion', expected a share"),
        ("movement:0.5", "one of random, uniform, motion, attention, merge"),
        (torch.tensor([1, 2]), r"torch.int64 \(2,\), expected indices, torch.int64 \(B, K\)"),
        (torch.tensor([[0.5]]), r"torch.float32 \(1, 1\)"),
    ],
)
def test_invalid_shares_and_indices_are_named(keep, words, patches):
    with pytest.raises(ValueError, match=f"^keep: .*{words}"):
        select_tokens(patches, keep)


# Token merging


def merged_by_loops(tokens, sizes, keys, num_merged, num_class_tokens):
    """One clip of a block's merging: lists of sets of patches, and their weighted means."""
    normed = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    even, odd = list(range(0, len(keys), 2)), list(range(1, len(keys), 2))
    best = []
    for i in even:
        similarity, partner = max((normed[i] @ normed[j], j) for j in odd)
        best.append((-np.inf if i < num_class_tokens else similarity, i, partner))
    chosen = {i: j for _, i, j in sorted(best, reverse=True)[:num_merged]}
    results = []
    for i in [i for i in even if i not in chosen] + odd:
        members = [i, *(k for k, j in chosen.items() if j == i)]
        size = sum(sizes[k] for k in members)
        results.append((sum(sizes[k] * tokens[k] for k in members) / size, size))
    return np.stack([token for token, _ in results]), np.array([size for _, size in results])


def block_by_loops(block, tokens, sizes, num_merged, num_class_tokens):
    """A ViT block with proportional attention and merging on one clip (T, D)."""
    normed = block.attention_norm(tokens)
    q, k, v = (part.unflatten(-1, (block.attention.num_heads, -1)) for part in block.attention.qkv(normed).chunk(3, -1))
    heads = []
    for head in range(block.attention.num_heads):
        weights = torch.tensor(sizes) * torch.exp(q[:, head] @ k[:, head].T / q.shape[-1] ** 0.5)
        heads.append(weights / weights.sum(1, keepdim=True) @ v[:, head])
    tokens = tokens + block.attention.out(torch.cat(heads, -1))
    merged, sizes = merged_by_loops(tokens.numpy(), sizes, k.mean(1).numpy(), num_merged, num_class_tokens)
    merged = torch.from_numpy(merged)
    return merged + block.mlp(block.mlp_norm(merged)), sizes


@pytest.mark.parametrize(("num_tokens", "num_class_tokens"), [(12, 0), (13, 1)])
@torch.no_grad()
def test_merging_blocks_equal_explicit_loops(num_tokens, num_class_tokens):
    torch.manual_seed(0)
    blocks = [ViTBlock(16, 2, 2.0).double() for _ in range(3)]
    tokens = torch.randn(2, num_tokens, 16, dtype=torch.float64)
    merging = TokenMerging(tokens, 0.4, 3, num_class_tokens)
    merged = tokens
    remaining = []
    for block in blocks:
        merged = merging(block, merged)
        remaining.append(merged.shape[1])
    for clip in range(2):
        expected, sizes, before = tokens[clip], np.ones(num_tokens), num_tokens
        for block, after in zip(blocks, remaining, strict=True):
            expected, sizes = block_by_loops(block, expected, sizes, before - after, num_class_tokens)
            before = after
        torch.testing.assert_close(merged[clip], expected)
        assert sizes.tolist() == merging.sizes[clip].tolist() and sizes.sum() == num_tokens
        if num_class_tokens:
            assert sizes[0] == 1
        # The mean over the patches is the mean over the tokens, weighted by their sizes.
        weighted = (torch.from_numpy(sizes)[:, None] * expected).mean(0) * len(sizes) / num_tokens
        torch.testing.assert_close(merging.unmerge(merged)[clip].mean(0), weighted)
    assert remaining[-1] == num_tokens - round(0.6 * num_tokens)


def test_at_most_half_of_the_tokens_merge_in_a_block():
    tokens = torch.randn(1, 9, 8)
    merging = TokenMerging(tokens, 0.1, 1)
    assert merging(ViTBlock(8, 2, 2.0), tokens).shape[1] == 5


def test_equal_tokens_merge_first():
    keys = torch.eye(6)[None, [0, 1, 2, 2, 4, 5]]
    assert match(keys, 1).tolist() == [[0, 2, 3, 3, 1, 4]]
    pairs = list(itertools.combinations(range(6), 2))
    assert [pair for pair in pairs if match(keys, 1)[0, pair[0]] == match(keys, 1)[0, pair[1]]] == [(2, 3)]
