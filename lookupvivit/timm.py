"""LookupViT's image models under timm's names and interface: ``import lookupvivit.timm`` registers them.

    timm.create_model("lookupvit_b16_5x5", num_classes=10, img_size=384, drop_path_rate=0.1)

timm knows one stream of tokens, some of them prefix tokens without a place in the picture. Here the prefix tokens are
the compressed ones and the others the lookup tokens, whose (B, D, h, w) maps are the features. The weights have the
names they have in `lookupvivit.models.lookupvit`, so that either library loads what the other saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.models.base import Size
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.registry import CATALOGUE


class TimmLookupViT(LookupViT):
    """LookupViT that returns logits (B, K) as a tensor and keeps timm's conventions.

    Args:
        num_classes: K; 0 leaves the classifiers out, and the model returns what they would have read.
        in_chans: 3.
        img_size: side, or (H, W), of the pictures in pixels; others are taken too, the positions are resampled.
        patch_size: side, or (h, w), of a lookup token in pixels.
        compressed_size: k, (h, w) or (1, h, w) compressed tokens.
        global_pool: "avg".
        drop_rate: dropout before the classifiers.
        drop_path_rate: stochastic depth of the last block.
        options: other arguments of LookupViT.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        compressed_size: int | Sequence[int] = 5,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        **options: Any,
    ) -> None:
        for key, found, wanted in (("in_chans", in_chans, 3), ("global_pool", global_pool, "avg")):
            if found != wanted:
                raise ValueError(f"{key} must be {wanted!r} for LookupViT, found {found!r}")
        for key in ("heads", "exchange"):
            if options.get(key, "both") != "both":
                raise ValueError(f"{key}: ablations are built with lookupvivit.create_model, found {options[key]!r}")
        sizes = _of_image(img_size), _of_image(patch_size), _of_image(compressed_size)
        super().__init__(num_classes, *sizes, drop_path=drop_path_rate, **options)
        self.num_features = self.embed_dim = self.width
        self.head_hidden_size = 2 * self.width  # the pooled compressed and lookup tokens side by side
        self.num_prefix_tokens = sizes[2][1] * sizes[2][2]
        self.global_pool = global_pool
        self.head_drop = nn.Dropout(drop_rate)
        reduction = self.embedding.tubelet[1]
        self.feature_info = [
            {"module": f"blocks.{i}", "num_chs": self.width, "reduction": reduction} for i in range(len(self.blocks))
        ]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W)."""
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:
        """Normed tokens (B, M + N, D), the compressed ones in front."""
        compressed, lookup, _ = super().forward_features(image)
        return torch.cat([self.compressed_norm(compressed).flatten(1, 3), self.lookup_norm(lookup).flatten(1, 3)], 1)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, K) of normed tokens; before the classifiers (B, 2 D)."""
        count = self.num_prefix_tokens
        compressed, lookup = (self.head_drop(part.mean(1)) for part in (tokens[:, :count], tokens[:, count:]))
        if pre_logits or not self.num_classes:
            return torch.cat([compressed, lookup], dim=1)
        return (self.compressed_head(compressed) + self.lookup_head(lookup)) / 2

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Tokens after chosen blocks, as timm's vision transformers give them.

        Args:
            x: images (B, 3, H, W).
            indices: the last n blocks, or the blocks themselves; all by default.
            return_prefix_tokens: give (lookup, compressed tokens (B, M, D)) of each block.
            norm: apply the final norms.
            stop_early: leave out the blocks behind the last one asked for.
            output_fmt: "NCHW", (B, D, h, w), or "NLC", (B, N, D).
            intermediates_only: leave out the final tokens.

        Returns:
            The list of intermediates, or (what `forward_features` gives, that list).
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be 'NCHW' or 'NLC', found {output_fmt!r}")
        taken, last = feature_take_indices(len(self.blocks), indices)
        every_block = self.blocks
        if stop_early:
            self.blocks = every_block[: last + 1]
        try:
            compressed, lookup, seen = super().forward_features(x, return_intermediates=True)
        finally:
            self.blocks = every_block
        found = []
        for i in taken:
            streams = {"compressed": seen[i]["compressed"].flatten(1, 3), "lookup": seen[i]["lookup"].squeeze(1)}
            if norm:
                streams = {name: getattr(self, f"{name}_norm")(tokens) for name, tokens in streams.items()}
            lookup_map = streams["lookup"]
            lookup_map = lookup_map.movedim(-1, 1) if output_fmt == "NCHW" else lookup_map.flatten(1, 2)
            found.append((lookup_map, streams["compressed"]) if return_prefix_tokens else lookup_map)
        if intermediates_only:
            return found
        final = [self.compressed_norm(compressed).flatten(1, 3), self.lookup_norm(lookup).flatten(1, 3)]
        return torch.cat(final, dim=1), found

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks behind the last one of ``indices`` and, as asked, the final norms and the classifiers."""
        taken, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            self.compressed_norm = self.lookup_norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass instead of keeping them."""
        set_activation_checkpointing(self, enable)

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        """The classifiers of the compressed and of the lookup tokens."""
        return self.compressed_head, self.lookup_head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers by fresh ones; 0 classes leaves them out."""
        if global_pool not in (None, "", "avg"):
            raise ValueError(f"global_pool must be 'avg' for LookupViT, found {global_pool!r}")
        super().reset_classifier(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter names by depth, for timm's layer-wise learning rates."""
        blocks = r"^blocks\.(\d+)" if coarse else [(r"^blocks\.(\d+)", None), (r"_(?:norm|head)\.", (99999,))]
        return {"stem": r"^(?:embedding\.|positions|compress\.)", "blocks": blocks}

    def _classifier(self) -> nn.Module:
        return super()._classifier() if self.num_classes else nn.Identity()


def _of_image(size: int | Sequence[int]) -> Size:
    """A side, (h, w) or (1, h, w) as (1, h, w)."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) == 2:
        sides = (1, *sides)
    if len(sides) != 3 or sides[0] != 1:
        raise ValueError(f"a size of an image is n, (h, w) or (1, h, w), found {size!r}")
    return sides


def _entry_point(name: str, arguments: dict[str, Any]) -> Any:
    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained and not kwargs.get("pretrained_cfg_overlay"):
            raise ValueError(
                f"{name}: nobody has published LookupViT weights, so pretrained=True has none to load; give your own "
                "with checkpoint_path=..., or start from a ViT with lookupvivit.weights.importing.import_weights"
            )
        return build_model_with_cfg(
            TimmLookupViT,
            name,
            pretrained,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            **{**arguments, **kwargs},
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name} of `lookupvivit.list_models()`."
    return build


_IMAGE_MODELS = {name: arguments for name, (_, arguments) in CATALOGUE.items() if name.startswith("lookupvit_")}

# ViT's pixels in [-1, 1]; the test crop of big_vision: 224 of 256.
default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": None,
            "crop_pct": 224 / 256,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": None,  # fixed to three channels
            "classifier": ("compressed_head", "lookup_head"),
            "license": "apache-2.0",
        }
        for name in _IMAGE_MODELS
    }
)
__all__ = ["TimmLookupViT", *(register_model(_entry_point(*entry)).__name__ for entry in _IMAGE_MODELS.items())]
