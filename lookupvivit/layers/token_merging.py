"""Token merging (ToMe: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023), which needs no training.

A baseline for token keeping. Every block of a ViT merges the most similar tokens between its attention and its MLP:

    matching   every second token chooses the most similar other one by its key, averaged over the heads and normed; the
               pairs of highest similarity merge into their mean, weighted by the number of patches in each token
    attention  is proportional: the logarithm of these numbers is added to the scores of the keys

At the end, every patch of the grid has the token that it was merged into, so that the mean over the grid is weighted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lookupvivit.layers.token_selection import KeepLike
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.sizes import MERGE, as_keep


class TokenMerging:
    """The state of one forward pass: which token each patch belongs to, and the number of patches in each token.

    Args:
        tokens: (B, T, D) before the first block.
        share: of the T tokens that remain after the last block. Every block merges the same number, at most half.
        num_blocks: the number of blocks.
        num_class_tokens: number of leading tokens that are never merged, 0 or 1.
    """

    def __init__(self, tokens: Tensor, share: float, num_blocks: int, num_class_tokens: int = 0) -> None:
        batch, num_tokens = tokens.shape[0], int(tokens.shape[1])
        self.num_class_tokens = num_class_tokens
        self.remaining = [
            num_tokens - round((1 - share) * num_tokens * (i + 1) / num_blocks) for i in range(num_blocks)
        ]
        self.sizes = tokens.new_ones(batch, num_tokens)  # patches per token
        self.token_of = torch.arange(num_tokens, device=tokens.device).expand(batch, -1)  # token of each patch

    def __call__(self, block: ViTBlock, tokens: Tensor) -> Tensor:
        """One block with merging: (B, T, D) -> (B, T - r, D)."""
        q, k, v = block.attention.project(block.attention_norm(tokens))  # (B, H, T, d)
        mixed = F.scaled_dot_product_attention(q, k, v, self.sizes.log()[:, None, None])
        tokens = tokens + block.drop_path(block.attention.unite(mixed))
        num_tokens = int(tokens.shape[1])
        num_merged = min(num_tokens - self.remaining.pop(0), (num_tokens - self.num_class_tokens) // 2)
        if num_merged > 0:
            tokens = self.merge(
                tokens, match(k.mean(dim=1), num_merged, self.num_class_tokens), num_tokens - num_merged
            )
        return tokens + block.drop_path(block.mlp(block.mlp_norm(tokens)))

    def merge(self, tokens: Tensor, target: Tensor, num_targets: int) -> Tensor:
        """Average tokens (B, T, D) by the result of `match`, weighted by their sizes: (B, num_targets, D)."""
        sums = tokens.new_zeros(tokens.shape[0], num_targets, tokens.shape[2])
        index = target.unsqueeze(-1).expand_as(tokens)
        sums = sums.scatter_add(1, index, tokens * self.sizes.unsqueeze(-1))
        self.sizes = self.sizes.new_zeros(tokens.shape[0], num_targets).scatter_add(1, target, self.sizes)
        self.token_of = target.gather(1, self.token_of)
        return sums / self.sizes.unsqueeze(-1)

    def unmerge(self, tokens: Tensor) -> Tensor:
        """The token of each patch, and the class token if there is one: (B, T', D) -> (B, T, D)."""
        return tokens.gather(1, self.token_of.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def match(keys: Tensor, num_merged: int, num_class_tokens: int = 0) -> Tensor:
    """Bipartite soft matching.

    Args:
        keys: (B, T, d), whose cosine is the similarity.
        num_merged: number of tokens that are merged into another one, at most half of them.
        num_class_tokens: 1 if the first token must not be merged, otherwise 0.

    Returns:
        The index (B, T), below T - num_merged, of the token that each token becomes: first the even tokens that remain,
        then the odd ones, each in order.
    """
    keys = F.normalize(keys, dim=-1)
    similarity, partner = (keys[:, ::2] @ keys[:, 1::2].mT).max(dim=-1)  # (B, even): of the most similar odd token
    if num_class_tokens:
        similarity = torch.cat([torch.full_like(similarity[:, :1], -torch.inf), similarity[:, 1:]], dim=1)
    merged = similarity.topk(num_merged, dim=1).indices
    stays = torch.ones_like(similarity, dtype=torch.int64).scatter(1, merged, 0)  # (B, even)
    num_stay = int(similarity.shape[1]) - num_merged
    even = torch.where(stays > 0, stays.cumsum(1) - 1, num_stay + partner)
    odd = num_stay + torch.arange(int(keys.shape[1]) // 2, device=keys.device).expand(keys.shape[0], -1)
    target = torch.empty(keys.shape[:2], dtype=torch.int64, device=keys.device)
    target[:, ::2], target[:, 1::2] = even, odd
    return target


def merge_share(keep: KeepLike) -> float | None:
    """The share of "merge:SHARE"; None for anything else, and for all tokens."""
    if keep is None or isinstance(keep, Tensor) or as_keep(keep).strategy != MERGE or as_keep(keep).share == 1:
        return None
    return as_keep(keep).share
