"""LookupViT (Koner et al., ECCV 2024) for video and image in one class; an image is a video of one frame.

Read top-down: a video becomes lookup tokens, these are resampled into few compressed tokens, every block lets the
compressed tokens look at the lookup tokens, refines them as a ViT does and hands the result back along the same
attention; each stream ends in a classifier of its own. Shape legend: `lookupvivit.layers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lookupvivit.layers.compressed_init import COMPRESSED_INITS, Resample, require_within
from lookupvivit.layers.drop_path import DropPath
from lookupvivit.layers.mhbc import Gather, Infuse
from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.patch_embed import TubeletEmbedding
from lookupvivit.layers.pos_embed import POSITION_INITS
from lookupvivit.layers.resample import resample
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.base import Size, as_size, check_transformer, classifier, groups_by_depth, pool, require
from lookupvivit.models.described import Described
from lookupvivit.models.outputs import ModelOutput

if TYPE_CHECKING:
    from lookupvivit.profiling.budget import FixedSizeModel

HEADS = ("both", "compressed", "lookup")
EXCHANGES = ("both", "gather", "none")


class LookupViTBlock(nn.Module):
    """One block, Algorithm 4: gather, refine, infuse, and a light MLP on the lookup tokens.

    Algorithms 1 and 2 print the residual sum inside and Algorithm 4 prints it again outside, around normed inputs.
    Read as a pre-norm transformer: normed inputs go in, the update is added once, to the un-normed stream.

    Args:
        width, heads: D and H.
        mlp_ratio: p, hidden width of the compressed MLP over D.
        lookup_reduction: q, D over the hidden width of the lookup MLP.
        exchange: "both" ways; "gather" leaves lines 3 and 4 out, so that the lookup tokens stay as they are (a last
            block whose lookup tokens nobody reads, and an ablation); "none" leaves the ViT block alone.
    """

    def __init__(
        self,
        width: int,
        heads: int,
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
            self.gather = Gather(width, heads, eps)
        self.refine = ViTBlock(width, heads, mlp_ratio, drop_path, eps, gelu)
        if exchange == "both":
            self.infuse_norm = nn.LayerNorm(width, eps=eps)
            self.infuse = Infuse(width, heads, eps)
            self.lookup_mlp_norm = nn.LayerNorm(width, eps=eps)
            self.lookup_mlp = MLP(width, round(width / lookup_reduction), gelu)

    def forward(
        self, compressed: Tensor, lookup: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """compressed (B, M, D), lookup (B, N, D) -> both updated, and A (B, H, M, N) if asked for and there is one."""
        attention = None
        # Information gathering, Algorithm 1
        if self.exchange != "none":
            queries, read = self.gather_norm_compressed(compressed), self.gather_norm_lookup(lookup)
            update, weights = self.gather(queries, read, return_attention)
            compressed = compressed + self.drop_path(update)
            attention = weights.attention if return_attention else None
        # Representation refinement, Algorithm 3: a ViT block on the few
        compressed = self.refine(compressed)
        # Global context infusion, Algorithm 2: a light update of the many
        if self.exchange == "both":
            lookup = lookup + self.drop_path(self.infuse(self.infuse_norm(compressed), weights))
            lookup = lookup + self.drop_path(self.lookup_mlp(self.lookup_mlp_norm(lookup)))
        return compressed, lookup, attention


def check_compressed_size(model: nn.Module, size: Size, what: str = "compressed_size") -> None:
    """ValueError where a model cannot be asked for ``size`` (t, h, w) compressed tokens; ``what`` names the size."""
    if not (isinstance(model, LookupViT) and isinstance(model.compress, Resample)):
        raise ValueError(
            f"{what}: found {list(size)} (t, h, w), must be left out for this {type(model).__name__}, "
            "whose compressed size is fixed or which has none"
        )
    require_within(size, model.embedding.grid(model.input_size), what)


class LookupViT(Described):
    """LookupViT for images (tubelet t = 1) and LookupViViT for video.

    Args:
        num_classes: K, classes of either head.
        input_size: (T, H, W) pixels the position table is made for; other sizes are resampled on the fly.
        tubelet: (t, h, w) pixels per lookup token.
        compressed_size: (t, h, w) compressed tokens by default; each call may ask for another size.
        width, depth, num_heads: D, L, H.
        mlp_ratio, lookup_reduction: p and q of the paper.
        drop_path: stochastic depth of the last block; block l of L drops with l / (L - 1) of it.
        heads: which classifiers exist. "compressed" also leaves out the last lookup update, which only the lookup
            head could read.
        exchange: "both" ways; ablations of Table 5: "gather" (no MHBC p->l) and "none" (no lookup tokens). Without the
            way back the lookup tokens stay raw embeddings, so that heads must be "compressed".
        compressed_init: where compressed tokens come from, "resample" (Eq. 1); ablations of Table 5: "random" (learned
            start values, the same for every input) and "conv" (a learned reduction of the lookup tokens). The
            ablations have weights of ``compressed_size`` and take no other.
        position_init: what the learned positions start from, "normal" (N(0, 0.02)) or "sincos".
        antialias: T of Eq. 1 with the triangle kernel widened when shrinking (JAX's default) or plain (PyTorch's).
        eps, gelu: LayerNorm epsilon and GELU form ("tanh" or "none" = erf); the defaults are the JAX parents'.
        head_bias: initial bias of the classifiers (-6.9 for sigmoid losses on ImageNet-1k).
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
        heads: str = "both",
        exchange: str = "both",
        compressed_init: str = "resample",
        position_init: str = "normal",
        antialias: bool = True,
        eps: float = 1e-6,
        gelu: str = "tanh",
        head_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_transformer(width, depth, num_heads, mlp_ratio, drop_path, gelu, eps)
        if lookup_reduction <= 0 or round(width / lookup_reduction) < 1:
            raise ValueError(f"lookup_reduction must lie in (0, width], found {lookup_reduction!r}")
        require("exchange", exchange, EXCHANGES)
        require("heads", heads, HEADS if exchange == "both" else ("compressed",))
        require("compressed_init", compressed_init, tuple(COMPRESSED_INITS))
        require("position_init", position_init, tuple(POSITION_INITS))
        self.num_classes, self.width, self.heads, self.antialias = num_classes, width, heads, antialias
        self.input_size, self.compressed_size = as_size(input_size), as_size(compressed_size)
        self.head_bias = head_bias

        self.embedding = TubeletEmbedding(as_size(tubelet), width)
        grid = self.embedding.grid(self.input_size)
        self.positions = nn.Parameter(POSITION_INITS[position_init](grid, width))
        self.compress = COMPRESSED_INITS[compressed_init](grid, self.compressed_size, width, antialias)
        self.blocks = nn.ModuleList(
            LookupViTBlock(
                width,
                num_heads,
                mlp_ratio,
                lookup_reduction,
                drop_path * i / max(1, depth - 1),
                eps,
                gelu,
                "gather" if exchange == "both" and heads == "compressed" and i == depth - 1 else exchange,
            )
            for i in range(depth)
        )
        if heads != "lookup":
            self.compressed_norm, self.compressed_head = nn.LayerNorm(width, eps=eps), self._classifier()
        if heads != "compressed":
            self.lookup_norm, self.lookup_head = nn.LayerNorm(width, eps=eps), self._classifier()

    def forward(
        self, video: Tensor, compressed_size: Size | None = None, return_intermediates: bool = False
    ) -> ModelOutput:
        """Classify a video (B, 3, T, H, W) or an image (B, 3, H, W) with values in [-1, 1].

        Args:
            compressed_size: (t, h, w) compressed tokens, the model's own by default.
            return_intermediates: add one dict per block: ``attention`` (B, H, tp, hp, wp, t, h, w),
                ``compressed`` (B, tp, hp, wp, D) and ``lookup`` (B, t, h, w, D); no attention without an exchange.
                It has the attention written down, which `lookupvivit.kernels` otherwise avoids where it is large.

        Returns:
            ModelOutput: ``logits`` (B, K) is the mean of the logits of the heads there are (section 3.4).
        """
        compressed, lookup, intermediates = self.forward_features(video, compressed_size, return_intermediates)
        logits = {}
        if self.heads != "lookup":
            logits["compressed_logits"] = self.compressed_head(pool(self.compressed_norm(compressed)))
        if self.heads != "compressed":
            logits["lookup_logits"] = self.lookup_head(pool(self.lookup_norm(lookup)))
        output = ModelOutput(logits=sum(logits.values()) / len(logits), **logits)
        if return_intermediates:
            output["intermediates"] = intermediates
        return output

    def forward_features(
        self, video: Tensor, compressed_size: Size | None = None, return_intermediates: bool = False
    ) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
        """Both token streams after the last block, before their final norm: (B, tp, hp, wp, D), (B, t, h, w, D)."""
        lookup, compressed = self.tokenize(video, compressed_size)
        lookup_grid, compressed_grid = lookup.shape[1:4], compressed.shape[1:4]
        lookup, compressed = lookup.flatten(1, 3), compressed.flatten(1, 3)  # (B, N, D), (B, M, D)
        intermediates = []
        for block in self.blocks:
            compressed, lookup, attention = block(compressed, lookup, return_intermediates)
            if return_intermediates:
                seen = {"compressed": compressed.unflatten(1, compressed_grid)}
                seen["lookup"] = lookup.unflatten(1, lookup_grid)
                if attention is not None:
                    seen["attention"] = attention.unflatten(-1, lookup_grid).unflatten(2, compressed_grid)
                intermediates.append(seen)
        return compressed.unflatten(1, compressed_grid), lookup.unflatten(1, lookup_grid), intermediates

    def tokenize(self, video: Tensor, compressed_size: Size | None = None) -> tuple[Tensor, Tensor]:
        """Lookup tokens (B, t, h, w, D) and compressed tokens (B, tp, hp, wp, D), both with positions (Eq. 1-2)."""
        tokens = self.embedding(video)
        grid = tokens.shape[1:4]
        lookup = tokens + resample(self.positions, grid, self.antialias)
        size = self.compressed_size if compressed_size is None else as_size(compressed_size)
        return lookup, self.compress(lookup, size)

    def for_budget(
        self,
        gflops: float | None = None,
        ms: float | None = None,
        sizes: Iterable[Size] | None = None,
        input_size: Size | None = None,
        batch: int = 1,
    ) -> FixedSizeModel:
        """This model at the largest compressed size within a budget: `lookupvivit.profiling.budget.for_budget`."""
        # Costs are known one floor up (and need fvcore): looked for only by who asks for them.
        from lookupvivit.profiling.budget import for_budget

        return for_budget(self, gflops, ms, sizes, input_size, batch)

    # The contract every model keeps

    @property
    def supervised(self) -> tuple[str, ...]:
        """Fields of the output that carry the loss, summed with equal weight (section 3.4)."""
        names = {"both": ("compressed_logits", "lookup_logits")}
        return names.get(self.heads, (f"{self.heads}_logits",))

    def no_weight_decay(self) -> set[str]:
        """Parameters that are never decayed, besides biases and norms (those have one dimension)."""
        return {"positions"} | {name for name, _ in self.named_parameters() if name == "compress.tokens"}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth for layer-wise lr decay: embedding, each block, norms and heads."""
        return groups_by_depth(self, ("embedding.", "positions", "compress."))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifiers by fresh ones of ``num_classes`` classes."""
        self.num_classes = num_classes
        for name in ("compressed_head", "lookup_head"):
            if hasattr(self, name):
                setattr(self, name, self._classifier().to(self.positions))

    def _classifier(self) -> nn.Linear:
        return classifier(self.width, self.num_classes, self.head_bias)
