"""LookupViT with timm's interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.layers.patch_embed import TubeletEmbedding
from lookupvivit.layers.resample import resample
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.registry import current_arguments
from lookupvivit.sizes import Size
from lookupvivit.timm.weights import accept_image_kernel, resized_kernel

try:
    from timm.models._input import update_model_input_size
except ImportError:  # older releases do not record the size

    def update_model_input_size(model: nn.Module, img_size: int | Sequence[int] | None, **model_args: Any) -> None: ...


POOLS = ("", "avg", "compressed", "lookup", "token")


class TimmLookupViT(LookupViT):
    """LookupViT with timm's arguments and methods; returns logits (B, K) as a tensor.

    Args:
        num_classes: K; with 0, there are no classifiers and the model returns features (B, D).
        in_chans: channels of an image.
        img_size: side or (H, W) of the images that the position embeddings are made for; they are resampled for others.
        dynamic_img_size: accept images of other sizes.
        patch_size: side or (h, w) of a lookup token in pixels.
        compressed_size: k, (h, w) or (1, h, w) compressed tokens.
        global_pool: what features and logits are the mean of: "avg", the means of both streams (as in the paper);
            "compressed" (or "token", as timm calls pooling by prefix tokens) or "lookup", the tokens of one stream; "",
            nothing: each token has its own.
        drop_rate: dropout before the classifiers.
        drop_path_rate: stochastic depth of the last block.
        patch_drop_rate: share of the lookup tokens that a training step drops at random, in [0, 1).
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
        dynamic_img_size: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        patch_drop_rate: float = 0.0,
        **options: Any,
    ) -> None:
        options = current_arguments(options)
        for key in ("classifiers", "exchange"):
            if options.get(key, "both") != "both":
                raise ValueError(
                    f"{key}: found {options[key]!r}, expected 'both'; lookupvivit.create_model builds ablations"
                )
        input_size, tubelet, compressed_size = map(image_size, (img_size, patch_size, compressed_size))
        super().__init__(num_classes, input_size, tubelet, compressed_size, drop_path=drop_path_rate, **options)
        if in_chans != 3:
            self.embedding = TubeletEmbedding(self.tubelet, self.width, in_chans)
        self.embedding.projection.register_load_state_dict_pre_hook(accept_image_kernel)
        self.in_chans, self.dynamic_img_size = in_chans, dynamic_img_size
        self.num_features = self.embed_dim = self.head_hidden_size = self.width
        self.num_prefix_tokens = compressed_size[1] * compressed_size[2]
        self.global_pool = _pool(global_pool)
        self.head_drop, self.patch_drop_rate = nn.Dropout(drop_rate), patch_drop_rate
        self._update_feature_info()

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]  # timm's signature
        """Return logits (B, K) of images (B, C, H, W)."""
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]  # timm's signature
        """Return normed tokens (B, M + N, D), the compressed tokens first."""
        keep = 1 - self.patch_drop_rate if self.training and self.patch_drop_rate else None
        compressed, lookup, _ = super().forward_features(image, keep=keep)
        return self._normed_sequence(compressed, lookup)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, K) of normed tokens (B, M + N, D), or with ``pre_logits`` the pooled features (B, D).

        Without pooling, return logits (B, M + N, K) or the tokens.
        """
        streams = {
            "compressed": (tokens[:, : self.num_prefix_tokens], self.compressed_head),
            "lookup": (tokens[:, self.num_prefix_tokens :], self.lookup_head),
        }
        outputs = []
        for features, classifier in [streams[self.global_pool]] if self.global_pool in streams else streams.values():
            pooled = self.head_drop(features.mean(1) if self.global_pool else features)
            outputs.append(pooled if pre_logits or not self.num_classes else classifier(pooled))
        return sum(outputs) / len(outputs) if self.global_pool else torch.cat(outputs, 1)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """Return the tokens after selected blocks, as timm's vision transformers do.

        Args:
            x: images (B, C, H, W).
            indices: the last n blocks, or block numbers; all blocks by default.
            return_prefix_tokens: return pairs of lookup tokens and compressed tokens (B, M, D).
            norm: apply the final norms.
            stop_early: skip the blocks after the last selected one.
            output_fmt: of the lookup tokens, "NCHW" (B, D, h, w) or "NLC" (B, N, D).
            intermediates_only: do not return the final tokens.
            output_dict: return a dict with ``image_intermediates``, with ``return_prefix_tokens`` also
                ``image_intermediates_prefix``, and unless ``intermediates_only``, ``image_features``.

        Returns:
            The list of intermediates; unless ``intermediates_only``, preceded by the result of `forward_features`.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt: found {output_fmt!r}, expected 'NCHW' or 'NLC'")
        selected, last = feature_take_indices(len(self.blocks), indices)
        lookup_map, compressed_map = self.tokenize(x)  # (B, 1, h, w, D), (B, 1, hp, wp, D)
        grid = lookup_map.shape[2:4]
        lookup, compressed = lookup_map.flatten(1, 3), compressed_map.flatten(1, 3)  # (B, N, D), (B, M, D)
        intermediates, prefixes = [], []
        for i, block in enumerate(self.blocks[: last + 1] if stop_early else self.blocks):
            compressed, lookup = block(compressed, lookup)
            if i in selected:
                streams = (self.compressed_norm(compressed), self.lookup_norm(lookup)) if norm else (compressed, lookup)
                prefix, features = streams
                if output_fmt == "NCHW":
                    features = features.mT.unflatten(2, grid)  # (B, N, D) -> (B, D, h, w)
                intermediates.append(features)
                if return_prefix_tokens:
                    prefixes.append(prefix)
        outputs: dict[str, Any] = {"image_intermediates": intermediates}
        if return_prefix_tokens:
            outputs["image_intermediates_prefix"] = prefixes
        if not intermediates_only:
            outputs["image_features"] = torch.cat([self.compressed_norm(compressed), self.lookup_norm(lookup)], dim=1)
        if output_dict:
            return outputs
        found = list(zip(intermediates, prefixes, strict=True)) if return_prefix_tokens else intermediates
        return found if intermediates_only else (outputs["image_features"], found)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | list[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Any]:
        """Return intermediates by DINO's arguments: as (B, N, D), or as maps (B, D, h, w) if ``reshape``."""
        output_fmt = "NCHW" if reshape else "NLC"
        return self.forward_intermediates(x, n, return_prefix_tokens, norm, True, output_fmt, intermediates_only=True)

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

    def set_input_size(
        self, img_size: int | tuple[int, int] | None = None, patch_size: int | tuple[int, int] | None = None
    ) -> None:
        """Resample the position embeddings to another image size, and the patch kernel to another patch size."""
        if patch_size is not None and image_size(patch_size) != self.tubelet:
            self.tubelet = self.embedding.tubelet = image_size(patch_size)
            projection = self.embedding.projection
            projection.kernel_size = projection.stride = self.tubelet
            _replace(projection, "weight", resized_kernel(projection.weight.detach(), self.tubelet))
            self._update_feature_info()
        if img_size is not None:
            self.input_size = image_size(img_size)
        grid = self.embedding.grid(self.input_size)
        _replace(self, "positions", resample(self.positions.detach(), grid, self.antialias))
        update_model_input_size(self, self.input_size[1:], patch_size=patch_size)

    def tokenize(
        self, video: Tensor, compressed_size: Size | None = None, kept: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `LookupViT.tokenize`.

        Raises:
            ValueError: an image of another size, with ``dynamic_img_size=False``.
        """
        if not self.dynamic_img_size and tuple(video.shape[-2:]) != self.input_size[1:]:
            raise ValueError(
                f"img_size: found an image of {tuple(video.shape[-2:])} (H, W), expected {self.input_size[1:]}; call "
                "set_input_size, or accept all sizes with dynamic_img_size=True"
            )
        return super().tokenize(video, compressed_size, kept)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        set_activation_checkpointing(self, enable)

    def get_classifier(self) -> tuple[nn.Module, nn.Module]:
        """Return the classifiers of the compressed and of the lookup tokens."""
        return self.compressed_head, self.lookup_head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers with newly initialised ones, and the pooling; 0 classes removes the classifiers."""
        if global_pool is not None:
            self.global_pool = _pool(global_pool)
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

    def _update_feature_info(self) -> None:
        info = {"num_chs": self.width, "reduction": max(self.tubelet)}
        self.feature_info = [{"module": f"blocks.{i}", **info} for i in range(len(self.blocks))]

    def _normed_sequence(self, compressed: Tensor, lookup: Tensor) -> Tensor:
        """(B, 1, hp, wp, D), (B, 1, h, w, D) -> (B, M + N, D)."""
        return torch.cat([self.compressed_norm(compressed).flatten(1, 3), self.lookup_norm(lookup).flatten(1, 3)], 1)

    def _create_classifier(self) -> nn.Module:
        return super()._create_classifier() if self.num_classes else nn.Identity()


def image_size(size: int | Sequence[int]) -> Size:
    """Convert a side, (h, w) or (1, h, w) to (1, h, w)."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) == 2:
        sides = (1, *sides)
    if len(sides) != 3 or sides[0] != 1:
        raise ValueError(f"size: found {size!r}, expected n, (h, w) or (1, h, w) for an image")
    return sides


def _pool(name: str) -> str:
    """The name of a pooling, without the alias."""
    if name not in POOLS:
        raise ValueError(f"global_pool: found {name!r}, expected one of {', '.join(map(repr, POOLS))}")
    return "compressed" if name == "token" else name


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    setattr(module, name, nn.Parameter(tensor, module.get_parameter(name).requires_grad))
