"""ViT (Dosovitskiy et al.) and ViViT with joint space-time attention (Arnab et al., model 1) in one class.

The baseline of every table: tubelets, positions and blocks are those of LookupViT, but all tokens pass through all
blocks. Shape legend: `lookupvivit.layers`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from lookupvivit.layers.drop_path import drop_path_rates
from lookupvivit.layers.patch_embed import TubeletEmbedding
from lookupvivit.layers.pos_embed import POSITION_INITS, initial_positions
from lookupvivit.layers.resample import resample
from lookupvivit.layers.token_merging import TokenMerging, merge_share
from lookupvivit.layers.token_selection import KeepLike, put_back, take
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.base import Model, check_transformer, create_classifier, groups_by_depth, pool, require_choice
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.sizes import MERGE, SELECTIONS, Size, as_size

POOLINGS = ("gap", "gap_norm", "token")


class ViT(Model):
    """ViT for images (tubelet t = 1) and ViViT for video.

    Args:
        num_classes: K.
        input_size: (T, H, W) that the position embeddings are made for; they are resampled for other sizes.
        tubelet: (t, h, w), frames and pixels of a token.
        width, depth, num_heads: D, number of blocks, H.
        mlp_ratio: hidden width of the MLP divided by D.
        drop_path: stochastic depth of the last block; the rates increase linearly from 0 in the first.
        pooling: "gap" averages the normed tokens, "gap_norm" norms the average (timm, VideoMAE), "token" reads a class
            token, which has no position embedding (big_vision). Table 1's GFLOPs of ViT-B are those of "gap".
        position_init: initial values of the learned position embeddings: "normal" (N(0, 0.02)), "sincos" or
            "unit_sincos" (see `lookupvivit.layers.pos_embed`).
        antialias, eps, gelu, classifier_bias: as in LookupViT.
    """

    def __init__(
        self,
        num_classes: int,
        input_size: Size = (1, 224, 224),
        tubelet: Size = (1, 16, 16),
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        drop_path: float = 0.0,
        pooling: str = "gap",
        position_init: str = "normal",
        antialias: bool = True,
        eps: float = 1e-6,
        gelu: str = "tanh",
        classifier_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_transformer(width, depth, num_heads, mlp_ratio, drop_path, gelu, eps)
        require_choice("pooling", pooling, POOLINGS)
        require_choice("position_init", position_init, tuple(POSITION_INITS))
        self.num_classes, self.width, self.antialias = num_classes, width, antialias
        self.input_size, self.tubelet = as_size(input_size), as_size(tubelet)
        self.classifier_bias, self.pooling = classifier_bias, pooling

        self.embedding = TubeletEmbedding(self.tubelet, width)
        grid = self.embedding.grid(self.input_size)  # (t, h, w)
        self.positions = nn.Parameter(initial_positions(position_init, grid, width))  # (1, t, h, w, D)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if pooling == "token" else None
        rates = drop_path_rates(drop_path, depth)
        self.blocks = nn.ModuleList(ViTBlock(width, num_heads, mlp_ratio, rate, eps, gelu) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = create_classifier(width, num_classes, classifier_bias)

    def forward(self, video: Tensor, return_intermediates: bool = False, keep: KeepLike = None) -> ModelOutput:
        """Classify videos (B, 3, T, H, W) or images (B, 3, H, W) with values in [-1, 1].

        Args:
            return_intermediates: return, per block, ``tokens`` (B, t, h, w, D).
            keep: as in LookupViT; "merge:0.5" merges similar tokens in every block until half of them remain, see
                `lookupvivit.layers.token_merging`.

        Returns:
            ModelOutput: ``logits`` (B, K).
        """
        class_token, tokens, intermediates = self.forward_features(video, return_intermediates, keep)
        if class_token is not None:
            pooled = self.norm(class_token)  # (B, D)
        elif self.pooling == "gap_norm":
            pooled = self.norm(pool(tokens))  # (B, t, h, w, D) -> (B, D)
        else:
            pooled = pool(self.norm(tokens))  # (B, t, h, w, D) -> (B, D)
        output = ModelOutput(logits=self.head(pooled))
        if return_intermediates:
            output["intermediates"] = intermediates
        return output

    def forward_features(
        self, video: Tensor, return_intermediates: bool = False, keep: KeepLike = None
    ) -> tuple[Tensor | None, Tensor, list[dict[str, Tensor]]]:
        """Return the tokens after the last block, before the final norm, and the intermediates of `forward`.

        Returns:
            The class token (B, D) or None, tokens (B, t, h, w, D), or (B, 1, 1, K, D) of the K kept ones, and one dict
            per block or none.
        """
        kept = None if keep is None else self.select_tokens(video, keep)  # (B, K)
        tokens = self.tokenize(video, kept)
        grid = tokens.shape[1:4]
        full_grid = grid if kept is None else self.embedding.grid_of(video)
        tokens = tokens.flatten(1, 3)  # (B, t, h, w, D) -> (B, N, D)
        num_class_tokens = 0
        if self.class_token is not None:
            class_tokens = self.class_token.expand(tokens.shape[0], -1, -1)  # (B, 1, D)
            tokens, num_class_tokens = torch.cat([class_tokens, tokens], dim=1), 1  # (B, 1 + N, D)
        share = merge_share(keep)
        merging = TokenMerging(tokens, share, len(self.blocks), num_class_tokens) if share else None
        intermediates = []
        for block in self.blocks:
            tokens = merging(cast(ViTBlock, block), tokens) if merging else block(tokens)
            if return_intermediates:
                all_tokens = merging.unmerge(tokens) if merging else tokens
                all_tokens = put_back(all_tokens[:, num_class_tokens:], kept, full_grid, dim=1)
                intermediates.append({"tokens": all_tokens})  # (B, t, h, w, D)
        if merging:
            tokens = merging.unmerge(tokens)
        class_token = tokens[:, 0] if num_class_tokens else None
        return class_token, tokens[:, num_class_tokens:].unflatten(1, grid), intermediates

    def tokenize(self, video: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return tokens with positions, (B, t, h, w, D), or (B, 1, 1, K, D) of the indices ``kept`` (B, K)."""
        if kept is not None:
            patches = self.embedding.patches(video)  # (B, t, h, w, P)
            positions = resample(self.positions, as_size(tuple(patches.shape[1:4])), self.antialias)  # (1, t, h, w, D)
            return (self.embedding.embed(take(patches, kept)) + take(positions, kept))[:, None, None]
        tokens = self.embedding(video)
        return tokens + resample(self.positions, tokens.shape[1:4], self.antialias)

    @torch.no_grad()
    def attention_scores(self, video: Tensor) -> Tensor:
        """The mean attention (B, N) of every sixteenth token to each token, in the first block."""
        tokens, block = self.tokenize(video).flatten(1, 3), cast(ViTBlock, self.blocks[0])  # (B, N, D)
        return block.attention.received(block.attention_norm(tokens), every=16)

    # The interface of `Model`

    @property
    def keep_strategies(self) -> tuple[str, ...]:
        """How a call may keep only some of the tokens."""
        return *SELECTIONS, MERGE

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, in addition to biases and norms (all 1-D parameters)."""
        return {"positions"} if self.class_token is None else {"positions", "class_token"}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth for layer-wise learning rate decay: embedding, each block, norm and classifier."""
        return groups_by_depth(self, len(self.blocks), stem=("embedding.", "positions", "class_token"))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier with a newly initialised one for ``num_classes`` classes."""
        self.num_classes = num_classes
        self.head = create_classifier(self.width, num_classes, self.classifier_bias).to(self.positions)
