"""LookupViT (Koner et al., ECCV 2024) for videos and images in one class. An image is a video of one frame.

A model tokenises a video into many lookup tokens, resamples them to a few compressed tokens, updates both in every
block, and classifies each stream:

    video -> lookup tokens -> compressed tokens                                     LookupViT.tokenize
    per block: gather (compressed attend to lookup), refine (ViT block),
               infuse (the same attention, transposed), light MLP on lookup         LookupViTBlock.forward
    final norm, pooling and a classifier per stream                                 LookupViT.forward

Shape legend
    B batch    N = t h w lookup tokens    M = tp hp wp compressed tokens    D width    H attention heads    K classes
    t h w      sizes of the lookup grid;  tp hp wp those of the compressed grid, always in this order

Beyond the paper, a call may keep only some of the lookup tokens (`lookupvivit.layers.token_selection`). The blocks are
the same; N is then the number of kept tokens, and their grid is 1 x 1 x N.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lookupvivit.layers.compressed_init import COMPRESSED_INITS
from lookupvivit.layers.drop_path import DropPath, drop_path_rates
from lookupvivit.layers.mhbc import Gather, Infuse
from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.patch_embed import TubeletEmbedding
from lookupvivit.layers.pos_embed import POSITION_INITS, initial_positions
from lookupvivit.layers.resample import resample
from lookupvivit.layers.token_selection import KeepLike, put_back, take
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.base import Model, check_transformer, create_classifier, groups_by_depth, pool, require_choice
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.sizes import SELECTIONS, Size, as_size

CLASSIFIERS = ("both", "compressed", "lookup")
EXCHANGES = ("both", "gather", "none")


class LookupViTBlock(nn.Module):
    """Algorithm 4: gather, refine, infuse, and apply a small MLP to the lookup tokens.

    Args:
        width, num_heads: D and H.
        mlp_ratio: p, the hidden width of the compressed MLP divided by D.
        lookup_reduction: q, D divided by the hidden width of the lookup MLP.
        drop_path: probability of dropping each branch of a sample during training.
        eps, gelu: LayerNorm epsilon and GELU form; the defaults are those of ViT and ViViT in JAX.
        exchange: "both" directions; "gather", which omits lines 3 and 4 and returns the lookup tokens unchanged (an
            ablation, and the last block of a model without a lookup classifier); or "none", the ViT block alone.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: float = 4,
        lookup_reduction: float = 2,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        gelu: str = "tanh",
        exchange: str = "both",
    ) -> None:
        super().__init__()
        self.exchange = exchange
        self.drop_path = DropPath(drop_path)
        if exchange != "none":
            self.gather_norm_compressed = nn.LayerNorm(width, eps=eps)
            self.gather_norm_lookup = nn.LayerNorm(width, eps=eps)
            self.gather = Gather(width, num_heads, eps)
        self.refine = ViTBlock(width, num_heads, mlp_ratio, drop_path, eps, gelu)
        if exchange == "both":
            self.infuse_norm = nn.LayerNorm(width, eps=eps)
            self.infuse = Infuse(width, num_heads, eps)
            self.lookup_mlp_norm = nn.LayerNorm(width, eps=eps)
            self.lookup_mlp = MLP(width, round(width / lookup_reduction), gelu)

    def forward(
        self, compressed: Tensor, lookup: Tensor, return_attention: bool = False, update_lookup: bool = True
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
        """Update both streams.

        Args:
            compressed: (B, M, D).
            lookup: (B, N, D).
            return_attention: materialise the attention matrix A.
            update_lookup: False if nothing reads the updated lookup tokens; they are then returned unchanged.

        Returns:
            The updated streams, and A (B, H, M, N) if it was requested and the block has a gather.
        """
        # Departure from the paper: Algorithms 1 and 2 contain a residual sum, and Algorithm 4 adds another one around
        # Algorithm 2. Here, as in a pre-norm transformer, an update is computed from normalised inputs and added once,
        # to the stream before normalisation.
        attention = []
        if self.exchange != "none":  # Algorithm 4, line 1: information gathering (Algorithm 1)
            normed_compressed, normed_lookup = self.gather_norm_compressed(compressed), self.gather_norm_lookup(lookup)
            update, weights = self.gather(normed_compressed, normed_lookup, return_attention)  # (B, M, D)
            compressed = compressed + self.drop_path(update)
            attention = [weights.attention] if return_attention else []
        # Line 2: representation refinement (Algorithm 3)
        compressed = self.refine(compressed)
        # Lines 3 and 4: global context infusion (Algorithm 2), and the lookup MLP. Not stated in Table 5, "No MHBC
        # p->l": without the infusion, this MLP is also omitted. The 11.0 GFLOPs in the table require this.
        if self.exchange == "both" and update_lookup:
            update = self.infuse(self.infuse_norm(compressed), weights)  # (B, N, D)
            lookup = lookup + self.drop_path(update)
            lookup = lookup + self.drop_path(self.lookup_mlp(self.lookup_mlp_norm(lookup)))
        return compressed, lookup, *attention


class LookupViT(Model):
    """LookupViT for images (tubelet t = 1) and LookupViViT for video.

    Args:
        num_classes: K of each classifier.
        input_size: (T, H, W), which determines the grid of position embeddings; other inputs resample them.
        tubelet: (t, h, w), the frames and pixels that a lookup token embeds.
        compressed_size: default grid (t, h, w) of compressed tokens; a call can request another size.
        width, depth, num_heads: D, number of blocks, H.
        mlp_ratio, lookup_reduction: p and q of the paper, see `LookupViTBlock`.
        drop_path: stochastic depth rate of the last block; rates increase linearly from 0 in the first block.
        classifiers: "both", "compressed" or "lookup".
        exchange: "both" directions, or an ablation of Table 5: "gather" (no MHBC p->l) or "none" (no lookup tokens).
            Neither updates the lookup tokens; both therefore need ``classifiers="compressed"``.
        compressed_init: how compressed tokens are created: "resample" (Eq. 1), or an ablation of Table 5: "random"
            (learned tokens, the same for every input) or "conv" (a learned reduction of the lookup tokens). In these
            ablations, the shape of the weights depends on ``compressed_size``, so that a call accepts no other size.
        position_init: initial values of the learned position embeddings: "normal" (N(0, 0.02)), "sincos" or
            "unit_sincos" (see `lookupvivit.layers.pos_embed`).
        antialias: whether T of Eq. 1 widens its triangle kernel when shrinking (default in JAX, not in PyTorch).
        eps, gelu: LayerNorm epsilon, and GELU form ("tanh", or "none" for the exact form); the defaults are those of
            ViT and ViViT in JAX.
        classifier_bias: initial bias of the classifiers (-6.9 for the sigmoid loss on ImageNet-1k).
    """

    def __init__(
        self,
        num_classes: int,
        input_size: Size = (1, 224, 224),
        tubelet: Size = (1, 16, 16),
        compressed_size: Size = (1, 5, 5),
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        lookup_reduction: float = 2,
        drop_path: float = 0.0,
        classifiers: str = "both",
        exchange: str = "both",
        compressed_init: str = "resample",
        position_init: str = "normal",
        antialias: bool = True,
        eps: float = 1e-6,
        gelu: str = "tanh",
        classifier_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_transformer(width, depth, num_heads, mlp_ratio, drop_path, gelu, eps)
        if lookup_reduction <= 0 or round(width / lookup_reduction) < 1:
            raise ValueError(f"lookup_reduction: found {lookup_reduction!r}, expected a number in (0, width]")
        require_choice("exchange", exchange, EXCHANGES)
        require_choice("classifiers", classifiers, CLASSIFIERS if exchange == "both" else ("compressed",))
        require_choice("compressed_init", compressed_init, tuple(COMPRESSED_INITS))
        require_choice("position_init", position_init, tuple(POSITION_INITS))
        self.num_classes, self.width, self.classifiers, self.antialias = num_classes, width, classifiers, antialias
        self.input_size, self.compressed_size = as_size(input_size), as_size(compressed_size)
        self.tubelet, self.classifier_bias = as_size(tubelet), classifier_bias

        self.embedding = TubeletEmbedding(self.tubelet, width)
        grid = self.embedding.grid(self.input_size)  # (t, h, w)
        self.positions = nn.Parameter(initial_positions(position_init, grid, width))  # (1, t, h, w, D)
        self.compress = COMPRESSED_INITS[compressed_init](grid, self.compressed_size, width, antialias)
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates(drop_path, depth)):
            if i == depth - 1 and classifiers == "compressed" and exchange == "both":
                # Departure from Algorithm 4: without a lookup classifier, nothing reads the last update of the lookup
                # tokens. It is omitted, as in the GFLOPs of Table 1.
                exchange = "gather"
            self.blocks.append(LookupViTBlock(width, num_heads, mlp_ratio, lookup_reduction, rate, eps, gelu, exchange))
        # Not stated in the paper: each stream has a final LayerNorm, as in ViT and ViViT.
        if classifiers != "lookup":
            self.compressed_norm, self.compressed_head = nn.LayerNorm(width, eps=eps), self._create_classifier()
        if classifiers != "compressed":
            self.lookup_norm, self.lookup_head = nn.LayerNorm(width, eps=eps), self._create_classifier()

    def forward(
        self,
        video: Tensor,
        compressed_size: Size | None = None,
        return_intermediates: bool = False,
        keep: KeepLike = None,
    ) -> ModelOutput:
        """Classify videos (B, 3, T, H, W) or images (B, 3, H, W) with values in [-1, 1].

        Args:
            compressed_size: (t, h, w) compressed tokens, by default the model's own.
            return_intermediates: also return, for each block, ``compressed`` (B, tp, hp, wp, D), ``lookup``
                (B, t, h, w, D) and, unless ``exchange="none"``, ``attention`` (B, H, tp, hp, wp, t, h, w). This
                materialises the attention matrices; `lookupvivit.kernels` otherwise avoids this for large ones.
            keep: process only some of the lookup tokens: a share such as 0.5 or "motion:0.5", or indices (B, K), see
                `lookupvivit.layers.token_selection`. Both intermediates are 0 at dropped tokens.

        Returns:
            ModelOutput: ``logits`` (B, K), the mean over the classifiers (section 3.4), and those of each classifier.
        """
        compressed, lookup, intermediates = self.forward_features(video, compressed_size, return_intermediates, keep)
        output = self.classify(compressed, lookup)
        if return_intermediates:
            output["intermediates"] = intermediates
        return output

    def classify(self, compressed: Tensor, lookup: Tensor) -> ModelOutput:
        """The logits, from both streams after the last block: (B, tp, hp, wp, D) and (B, t, h, w, D)."""
        logits = {}
        if self.classifiers != "lookup":
            pooled = pool(self.compressed_norm(compressed))  # (B, tp, hp, wp, D) -> (B, D)
            logits["compressed_logits"] = self.compressed_head(pooled)  # (B, K)
        if self.classifiers != "compressed":
            pooled = pool(self.lookup_norm(lookup))  # (B, t, h, w, D) -> (B, D)
            logits["lookup_logits"] = self.lookup_head(pooled)  # (B, K)
        # Not stated in section 3.4: logits are averaged, not probabilities, which also suits a sigmoid loss.
        return ModelOutput(logits=sum(logits.values()) / len(logits), **logits)

    def forward_features(
        self,
        video: Tensor,
        compressed_size: Size | None = None,
        return_intermediates: bool = False,
        keep: KeepLike = None,
    ) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
        """Return both streams after the last block, before their final norms, and the intermediates of `forward`.

        Returns:
            Compressed tokens (B, tp, hp, wp, D), lookup tokens (B, t, h, w, D), or (B, 1, 1, K, D) of the K kept ones,
            and one dict per block or none.
        """
        kept = None if keep is None else self.select_tokens(video, keep)  # (B, K)
        lookup, compressed = self.tokenize(video, compressed_size, kept)
        full_grid = None if kept is None else self.embedding.grid_of(video)  # (t, h, w)
        return self.apply_blocks(compressed, lookup, return_intermediates, kept, full_grid)

    def apply_blocks(
        self,
        compressed: Tensor,
        lookup: Tensor,
        return_intermediates: bool = False,
        kept: Tensor | None = None,
        full_grid: Size | None = None,
        update_last_lookup: bool = True,
    ) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
        """Update the streams of `tokenize`; see `forward_features`.

        Args:
            kept: the indices (B, K) of the lookup tokens in ``full_grid`` (t, h, w); default: there are all.
            update_last_lookup: whether the last block updates the lookup tokens.
        """
        lookup_grid, compressed_grid = lookup.shape[1:4], compressed.shape[1:4]  # (t, h, w), (tp, hp, wp)
        grid = lookup_grid if full_grid is None else full_grid
        lookup = lookup.flatten(1, 3)  # (B, t, h, w, D) -> (B, N, D)
        compressed = compressed.flatten(1, 3)  # (B, tp, hp, wp, D) -> (B, M, D)
        intermediates = []
        for i, block in enumerate(self.blocks, 1):
            update_lookup = update_last_lookup or i < len(self.blocks)
            compressed, lookup, *attention = block(compressed, lookup, return_intermediates, update_lookup)
            if return_intermediates:
                block_output = {"compressed": compressed.unflatten(1, compressed_grid)}  # (B, tp, hp, wp, D)
                block_output["lookup"] = put_back(lookup, kept, grid, dim=1)  # (B, t, h, w, D)
                if attention:
                    weights = put_back(attention[0], kept, grid, dim=3)  # (B, H, M, N) -> (B, H, M, t, h, w)
                    block_output["attention"] = weights.unflatten(2, compressed_grid)  # (B, H, tp, hp, wp, t, h, w)
                intermediates.append(block_output)
        return compressed.unflatten(1, compressed_grid), lookup.unflatten(1, lookup_grid), intermediates

    def tokenize(
        self, video: Tensor, compressed_size: Size | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return lookup tokens (B, t, h, w, D) and compressed tokens (B, tp, hp, wp, D), both with positions.

        With indices ``kept`` (B, K), the lookup tokens are (B, 1, 1, K, D), and only these are embedded.
        """
        size = self.compressed_size if compressed_size is None else as_size(compressed_size)
        if kept is not None:
            return self._tokenize_kept(video, size, kept)
        return self._with_positions(self.embedding(video), size)  # section 3.2

    def _with_positions(self, tokens: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """`tokenize`, for embedded tubelets (B, t, h, w, D)."""
        grid: Any = tokens.shape[1:4]  # under `torch.fx`, not a tuple
        lookup = tokens + resample(self.positions, grid, self.antialias)
        return lookup, self.compress(lookup, size)  # Eq. 1 and 2

    def _tokenize_kept(self, video: Tensor, size: Size, kept: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.embedding.patches(video)  # (B, t, h, w, P)
        positions = resample(self.positions, as_size(tuple(patches.shape[1:4])), self.antialias)  # (1, t, h, w, D)
        lookup = self.embedding.embed(take(patches, kept)) + take(positions, kept)  # (B, K, D)
        # The compressed tokens are those of all patches. T and the embedding E are linear, so that T(E(patches)) is
        # E(T(patches)), which embeds M patches instead of N.
        content = self.embedding.embed(self.compress(patches, size).flatten(1, 3))  # (B, M, D)
        return lookup[:, None, None], content.unflatten(1, size) + self.compress(positions, size)

    @torch.no_grad()
    def attention_scores(self, video: Tensor) -> Tensor:
        """The mean attention (B, N) of an eighth of the compressed tokens to each lookup token, in the first block."""
        t, h, w = self.compressed_size
        tokens = self.tokenize(video, (max(1, t // 2), max(1, h // 2), max(1, w // 2)))
        lookup, compressed = (stream.flatten(1, 3) for stream in tokens)  # (B, N, D), (B, M, D)
        first: Any = self.blocks[0]
        lookup, compressed = first.gather_norm_lookup(lookup), first.gather_norm_compressed(compressed)
        _, weights = first.gather(compressed, lookup, return_attention=True)
        return weights.attention.mean(dim=(1, 2))  # (B, H, M, N) -> (B, N)

    def lookup_grid(self, video_size: Size) -> Size:
        """The grid (t, h, w) of lookup tokens from which the compressed tokens of a video (T, H, W) are resampled."""
        return self.embedding.grid(video_size)

    # The interface of `Model`

    @property
    def keep_strategies(self) -> tuple[str, ...]:
        """How a call may keep only some of the lookup tokens; not at all in ablations that do not resample them."""
        return SELECTIONS if self.compress.is_linear and self.blocks[0].exchange != "none" else ()

    @property
    def supervised(self) -> tuple[str, ...]:
        """Fields of the output that have a loss; the losses are summed with equal weights (section 3.4)."""
        if self.classifiers == "both":
            return "compressed_logits", "lookup_logits"
        return (f"{self.classifiers}_logits",)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, in addition to biases and norms (all 1-D parameters)."""
        return {"positions"} | {f"compress.{name}" for name in self.compress.no_weight_decay}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth for layer-wise learning rate decay: embedding, each block, norms and classifiers."""
        return groups_by_depth(self, len(self.blocks), stem=("embedding.", "positions", "compress."))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifiers with newly initialised ones for ``num_classes`` classes."""
        self.num_classes = num_classes
        for name in ("compressed_head", "lookup_head"):
            if hasattr(self, name):
                setattr(self, name, self._create_classifier().to(self.positions))

    def _create_classifier(self) -> nn.Module:
        return create_classifier(self.width, self.num_classes, self.classifier_bias)
