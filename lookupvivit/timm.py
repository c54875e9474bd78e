"""LookupViT's image models under timm's names and interface; ``import lookupvivit.timm`` registers them.

    timm.create_model("lookupvit_b16_5x5", num_classes=10, img_size=384, drop_path_rate=0.1)

timm models have one token sequence, which may start with prefix tokens that have no position in the image. Here, the
compressed tokens are the prefix, and the lookup tokens, as maps (B, D, h, w), are the features. Parameter names are the
same as in `lookupvivit.models.lookupvit`: both libraries load each other's weights.

Shape legend: `lookupvivit.layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.layers.resample import resample
from lookupvivit.models.base import Model
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.registry import CATALOGUE, current_arguments
from lookupvivit.sizes import Size, as_size


class TimmLookupViT(LookupViT):
    """LookupViT with timm's arguments and methods; returns logits (B, K) as a tensor.

    Args:
        num_classes: K; with 0, there are no classifiers and the model returns pooled features (B, D), the mean of both
            streams.
        in_chans: 3.
        img_size: side or (H, W) of the images that the position embeddings are made for; they are resampled for others.
        patch_size: side or (h, w) of a lookup token in pixels.
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
        if in_chans != 3:
            raise ValueError(f"in_chans: found {in_chans!r}, expected 3")
        if global_pool != "avg":
            raise ValueError(f"global_pool: found {global_pool!r}, expected 'avg'")
        options = current_arguments(options)
        for key in ("classifiers", "exchange"):
            if options.get(key, "both") != "both":
                raise ValueError(
                    f"{key}: found {options[key]!r}, expected 'both'; lookupvivit.create_model builds ablations"
                )
        input_size, tubelet, compressed_size = map(_image_size, (img_size, patch_size, compressed_size))
        super().__init__(num_classes, input_size, tubelet, compressed_size, drop_path=drop_path_rate, **options)
        self.num_features = self.embed_dim = self.head_hidden_size = self.width
        self.num_prefix_tokens = compressed_size[1] * compressed_size[2]
        self.global_pool = global_pool
        self.head_drop = nn.Dropout(drop_rate)
        stride = tubelet[1]
        self.feature_info = [
            {"module": f"blocks.{i}", "num_chs": self.width, "reduction": stride} for i in range(len(self.blocks))
        ]

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]  # timm's signature
        """Return logits (B, K) of images (B, 3, H, W)."""
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]  # timm's signature
        """Return normed tokens (B, M + N, D), the compressed tokens first."""
        compressed, lookup, _ = super().forward_features(image)
        return self._normed_sequence(compressed, lookup)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, K) of normed tokens (B, M + N, D), or with ``pre_logits`` the pooled features (B, D)."""
        compressed, lookup = tokens[:, : self.num_prefix_tokens], tokens[:, self.num_prefix_tokens :]
        compressed, lookup = self.head_drop(compressed.mean(1)), self.head_drop(lookup.mean(1))  # (B, D) each
        if pre_logits or not self.num_classes:
            return (compressed + lookup) / 2
        return (self.compressed_head(compressed) + self.lookup_head(lookup)) / 2

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return the tokens after selected blocks, as timm's vision transformers do.

        Args:
            x: images (B, 3, H, W).
            indices: the last n blocks, or block numbers; all blocks by default.
            return_prefix_tokens: return pairs of lookup tokens and compressed tokens (B, M, D).
            norm: apply the final norms.
            stop_early: skip the blocks after the last selected one.
            output_fmt: of the lookup tokens, "NCHW" (B, D, h, w) or "NLC" (B, N, D).
            intermediates_only: do not return the final tokens.

        Returns:
            The list of intermediates; unless ``intermediates_only``, preceded by the result of `forward_features`.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt: found {output_fmt!r}, expected 'NCHW' or 'NLC'")
        selected, last = feature_take_indices(len(self.blocks), indices)
        lookup_map, compressed_map = self.tokenize(x)  # (B, 1, h, w, D), (B, 1, hp, wp, D)
        grid = lookup_map.shape[2:4]
        lookup, compressed = lookup_map.flatten(1, 3), compressed_map.flatten(1, 3)  # (B, N, D), (B, M, D)
        intermediates: list[Any] = []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            compressed, lookup = block(compressed, lookup)
            if i in selected:
                streams = (self.compressed_norm(compressed), self.lookup_norm(lookup)) if norm else (compressed, lookup)
                prefix, features = streams
                if output_fmt == "NCHW":
                    features = features.mT.unflatten(2, grid)  # (B, N, D) -> (B, D, h, w)
                intermediates.append((features, prefix) if return_prefix_tokens else features)
        if intermediates_only:
            return intermediates
        return torch.cat([self.compressed_norm(compressed), self.lookup_norm(lookup)], dim=1), intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks after the last one of ``indices`` and, on request, the final norms and classifiers."""
        selected, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]
        if prune_norm:
            for name in ("compressed_norm", "lookup_norm"):
                setattr(self, name, nn.Identity())
        if prune_head:
            self.reset_classifier(0)
        return selected

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        set_activation_checkpointing(self, enable)

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        """Return the classifiers of the compressed and of the lookup tokens."""
        return self.compressed_head, self.lookup_head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers with newly initialised ones; 0 classes removes them."""
        if global_pool not in (None, "", "avg"):
            raise ValueError(f"global_pool: found {global_pool!r}, expected 'avg'")
        super().reset_classifier(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that group parameters by depth, for timm's layer-wise learning rates."""
        blocks = r"^blocks\.(\d+)" if coarse else [(r"^blocks\.(\d+)", None), (r"_(?:norm|head)\.", (99999,))]
        return {"stem": r"^(?:embedding\.|positions|compress\.)", "blocks": blocks}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TimmLookupViT:
        """Convert all tensors; ``torch.channels_last`` has four axes and skips the positions and kernel with five."""

        def convert(tensor: Tensor) -> Tensor:
            try:
                return fn(tensor)
            except RuntimeError:
                if tensor.dim() != 5:
                    raise
                return fn(tensor.flatten(1)).unflatten(1, tensor.shape[1:])  # as a matrix, which has no such format

        return super()._apply(convert, recurse)

    def _normed_sequence(self, compressed: Tensor, lookup: Tensor) -> Tensor:
        """(B, 1, hp, wp, D), (B, 1, h, w, D) -> (B, M + N, D)."""
        return torch.cat([self.compressed_norm(compressed).flatten(1, 3), self.lookup_norm(lookup).flatten(1, 3)], 1)

    def _create_classifier(self) -> nn.Module:
        return super()._create_classifier() if self.num_classes else nn.Identity()


def _image_size(size: int | Sequence[int]) -> Size:
    """Convert a side, (h, w) or (1, h, w) to (1, h, w)."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) == 2:
        sides = (1, *sides)
    if len(sides) != 3 or sides[0] != 1:
        raise ValueError(f"size: found {size!r}, expected n, (h, w) or (1, h, w) for an image")
    return sides


def _fit_positions(state: dict[str, Tensor], model: TimmLookupViT) -> dict[str, Tensor]:
    """Weights whose positions are resampled to the model's ``img_size``."""
    grid = as_size(model.positions.shape[1:4])
    return {key: resample(value, grid) if key == "positions" else value for key, value in state.items()}


def _entry_point(name: str, arguments: dict[str, Any]) -> Callable[..., Model]:
    """The function that timm calls to build a model; timm registers it under its ``__name__``."""

    def build(pretrained: bool = False, **kwargs: Any) -> Model:
        sources = {key: kwargs.get(key) for key in ("pretrained_cfg", "pretrained_cfg_overlay")}
        resolved = resolve_pretrained_cfg(name, **sources)
        if pretrained and not (resolved.has_weights or resolved.state_dict):
            raise ValueError(
                f"pretrained: found True for {name}, for which no weights have been published; load your own with "
                "checkpoint_path=..., or start from a ViT with lookupvivit.weights.importing.import_weights"
            )
        return build_model_with_cfg(
            TimmLookupViT,
            name,
            pretrained,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            pretrained_filter_fn=_fit_positions,
            **{**arguments, **kwargs},
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name} of `lookupvivit.list_models()`."
    return build


_IMAGE_MODELS = {name: arguments for name, (_, arguments) in CATALOGUE.items() if name.startswith("lookupvit_")}

# Pixels in [-1, 1], and big_vision's test crop: 224 of 256 pixels.
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
            "first_conv": "embedding.projection",
            "classifier": ("compressed_head", "lookup_head"),
            "license": "apache-2.0",
        }
        for name in _IMAGE_MODELS
    }
)
__all__ = ["TimmLookupViT", *(register_model(_entry_point(*entry)).__name__ for entry in _IMAGE_MODELS.items())]
