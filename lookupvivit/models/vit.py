"""ViT (Dosovitskiy et al.) and ViViT with joint space-time attention (Arnab et al., model 1) in one class.

The baseline of every table: the same tubelets, positions and blocks as LookupViT, but every token goes the whole way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lookupvivit.layers.patch_embed import TubeletEmbedding
from lookupvivit.layers.pos_embed import POSITION_INITS
from lookupvivit.layers.resample import resample
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.base import Size, as_size, check_transformer, classifier, groups_by_depth, pool, require
from lookupvivit.models.described import Described
from lookupvivit.models.outputs import ModelOutput

POOLS = ("gap", "gap_norm", "token")


class ViT(Described):
    """ViT for images (tubelet t = 1) and ViViT for video.

    Args:
        num_classes: K.
        input_size: (T, H, W) pixels the position table is made for; other sizes are resampled on the fly.
        tubelet: (t, h, w) pixels per token.
        width, depth, num_heads: D, L, H.
        mlp_ratio: hidden width of the MLP over D.
        drop_path: stochastic depth of the last block; block l of L drops with l / (L - 1) of it.
        pooling: "gap" averages the normed tokens, "gap_norm" norms their average (timm, VideoMAE), "token" reads a
            class token (which has no position, as in big_vision).
        position_init: what the learned positions start from, "normal" (N(0, 0.02)) or "sincos".
        antialias, eps, gelu, head_bias: as in LookupViT.
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
        head_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_transformer(width, depth, num_heads, mlp_ratio, drop_path, gelu, eps)
        require("pooling", pooling, POOLS)
        require("position_init", position_init, tuple(POSITION_INITS))
        self.num_classes, self.width, self.antialias = num_classes, width, antialias
        self.input_size, self.head_bias, self.pooling = as_size(input_size), head_bias, pooling

        self.embedding = TubeletEmbedding(as_size(tubelet), width)
        grid = self.embedding.grid(self.input_size)
        self.positions = nn.Parameter(POSITION_INITS[position_init](grid, width))
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if pooling == "token" else None
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(ViTBlock(width, num_heads, mlp_ratio, rate, eps, gelu) for rate in rates)
        self.norm, self.head = nn.LayerNorm(width, eps=eps), classifier(width, num_classes, head_bias)

    def forward(self, video: Tensor, return_intermediates: bool = False) -> ModelOutput:
        """Classify a video (B, 3, T, H, W) or an image (B, 3, H, W) with values in [-1, 1].

        Returns:
            ModelOutput: ``logits`` (B, K) and, on request, ``intermediates``: per block ``tokens`` (B, t, h, w, D).
        """
        class_token, tokens, intermediates = self.forward_features(video, return_intermediates)
        if self.pooling == "gap_norm":
            pooled = self.norm(pool(tokens))
        else:
            pooled = pool(self.norm(tokens)) if class_token is None else self.norm(class_token)
        output = ModelOutput(logits=self.head(pooled))
        if return_intermediates:
            output["intermediates"] = intermediates
        return output

    def forward_features(
        self, video: Tensor, return_intermediates: bool = False
    ) -> tuple[Tensor | None, Tensor, list[dict[str, Tensor]]]:
        """Class token (B, D) or None, and tokens (B, t, h, w, D), after the last block and before the final norm."""
        tokens = self.embedding(video)
        grid = tokens.shape[1:4]
        tokens = (tokens + resample(self.positions, grid, self.antialias)).flatten(1, 3)  # (B, N, D)
        first = 0
        if self.class_token is not None:
            tokens, first = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1), 1
        intermediates = []
        for block in self.blocks:
            tokens = block(tokens)
            if return_intermediates:
                intermediates.append({"tokens": tokens[:, first:].unflatten(1, grid)})
        return (tokens[:, 0] if first else None), tokens[:, first:].unflatten(1, grid), intermediates

    # The contract every model keeps

    supervised = ("logits",)

    def no_weight_decay(self) -> set[str]:
        """Parameters that are never decayed, besides biases and norms (those have one dimension)."""
        return {"positions"} if self.class_token is None else {"positions", "class_token"}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth for layer-wise lr decay: embedding, each block, norm and head."""
        return groups_by_depth(self, ("embedding.", "positions", "class_token"))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one of ``num_classes`` classes."""
        self.num_classes = num_classes
        self.head = classifier(self.width, num_classes, self.head_bias).to(self.positions)
