"""Perceiver (Jaegle et al., ICML 2021), a baseline of Table 1: a few latents read all pixels again and again.

At its published size, 224 x 224 pixels, 512 latents of 1,024 channels and 8 x (1 cross-attend + 6 self-attends), it
has 44.9 M parameters and takes 707 GFLOPs with multiply and add counted apart.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.patch_embed import as_video
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.base import Size, as_size, check_transformer, classifier, groups_by_depth
from lookupvivit.models.described import Described
from lookupvivit.models.outputs import ModelOutput


class CrossAttend(nn.Module):
    """Latents read the input: one head of the input's channels, a residual, and an MLP (appendix C)."""

    def __init__(self, width: int, channels: int, mlp_ratio: float, eps: float, gelu: str) -> None:
        super().__init__()
        self.latent_norm, self.input_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(channels, eps=eps)
        self.q, self.out = nn.Linear(width, channels), nn.Linear(channels, width)
        self.k, self.v = nn.Linear(channels, channels), nn.Linear(channels, channels)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.mlp_norm, self.mlp = nn.LayerNorm(width, eps=eps), MLP(width, round(mlp_ratio * width), gelu)

    def forward(self, latents: Tensor, inputs: Tensor) -> Tensor:
        """latents (B, L, D), inputs (B, N, C) -> (B, L, D)."""
        inputs = self.input_norm(inputs)
        q = self.q(self.latent_norm(latents))
        heads = (tokens.unsqueeze(1) for tokens in (q, self.k(inputs), self.v(inputs)))  # one head
        latents = latents + self.out(F.scaled_dot_product_attention(*heads).squeeze(1))
        return latents + self.mlp(self.mlp_norm(latents))


class Perceiver(Described):
    """Perceiver for images (T = 1) and video.

    Args:
        num_classes: K.
        input_size: (T, H, W) pixels that the frequencies of the Fourier positions are made for.
        tubelet: (t, h, w) pixels per input element, flattened; (1, 1, 1) is every pixel by itself, as published.
        num_latents, width: L, D.
        depth: self-attends of a stage; all stages share them.
        stages: how often the input is read; the first cross-attend has weights of its own, the others share theirs.
        num_heads, mlp_ratio: of the self-attends.
        bands: Fourier frequencies per axis.
        eps, gelu, head_bias: as in LookupViT.
    """

    supervised = ("logits",)

    def __init__(
        self,
        num_classes: int,
        input_size: Size = (1, 224, 224),
        tubelet: Size = (1, 1, 1),
        num_latents: int = 512,
        width: int = 1024,
        depth: int = 6,
        stages: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 1,
        bands: int = 64,
        eps: float = 1e-6,
        gelu: str = "tanh",
        head_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_transformer(width, depth, num_heads, mlp_ratio, 0.0, gelu, eps)
        for key, value in {"num_latents": num_latents, "stages": stages, "bands": bands}.items():
            if value < 1:
                raise ValueError(f"{key} must be at least 1, found {value}")
        self.num_classes, self.width, self.bands, self.stages = num_classes, width, bands, stages
        self.input_size, self.tubelet, self.head_bias = as_size(input_size), as_size(tubelet), head_bias
        grid = self.grid(self.input_size)
        # An axis of one element has no position to tell.
        self.axes = tuple(axis for axis in range(3) if grid[axis] > 1)
        channels = 3 * math.prod(self.tubelet) + len(self.axes) * (2 * bands + 1)
        self.latents = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, num_latents, width), std=0.02))
        self.cross_attends = nn.ModuleList(
            CrossAttend(width, channels, mlp_ratio, eps, gelu) for _ in range(min(stages, 2))
        )
        self.blocks = nn.ModuleList(ViTBlock(width, num_heads, mlp_ratio, 0.0, eps, gelu) for _ in range(depth))
        self.head = classifier(width, num_classes, head_bias)

    def forward(self, video: Tensor, return_intermediates: bool = False) -> ModelOutput:
        """Classify a video (B, 3, T, H, W) or an image (B, 3, H, W) with values in [-1, 1].

        Returns:
            ModelOutput: ``logits`` (B, K) and, on request, ``intermediates``: per stage ``latents`` (B, L, D).
        """
        latents, intermediates = self.forward_features(video, return_intermediates)
        output = ModelOutput(logits=self.head(latents.mean(dim=1)))
        if return_intermediates:
            output["intermediates"] = intermediates
        return output

    def forward_features(
        self, video: Tensor, return_intermediates: bool = False
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Latents (B, L, D) after the last stage."""
        inputs = self.inputs(video)
        latents = self.latents.expand(inputs.shape[0], -1, -1)
        intermediates = []
        for stage in range(self.stages):
            latents = self.cross_attends[min(stage, 1)](latents, inputs)
            for block in self.blocks:
                latents = block(latents)
            if return_intermediates:
                intermediates.append({"latents": latents})
        return latents, intermediates

    def inputs(self, video: Tensor) -> Tensor:
        """Pixels and their Fourier positions, (B, N, C)."""
        video = as_video(video, self.tubelet)
        grid, (t, h, w) = self.grid(tuple(video.shape[2:])), self.tubelet
        pixels = rearrange(video, "b c (t i) (h j) (w k) -> b t h w (i j k c)", i=t, j=h, k=w)
        # Made here, of the input's own size: a cached tensor would be captured by tracing.
        axes = [self._waves(axis, grid[axis], pixels) for axis in self.axes]
        positions = [
            waves.reshape(*[-1 if i == axis else 1 for i in range(3)], waves.shape[-1]).expand(*grid, -1)
            for axis, waves in zip(self.axes, axes, strict=True)
        ]
        everywhere = torch.cat(positions, dim=-1).expand(pixels.shape[0], -1, -1, -1, -1)
        return torch.cat([pixels, everywhere], dim=-1).flatten(1, 3)

    def _waves(self, axis: int, count: int, like: Tensor) -> Tensor:
        """(count, 2 bands + 1): sin and cos of pi f x with f from 1 to Nyquist, and x in [-1, 1] itself."""
        place = torch.linspace(-1, 1, count, device=like.device)
        nyquist = self.grid(self.input_size)[axis] / 2
        angles = torch.pi * place[:, None] * torch.linspace(1, nyquist, self.bands, device=like.device)
        return torch.cat([angles.sin(), angles.cos(), place[:, None]], dim=1).to(like.dtype)

    def grid(self, video_size: Size) -> Size:
        """Input elements (t, h, w) of a video of (T, H, W) pixels; ValueError where a tubelet does not fit evenly."""
        if any(size % step or size < step for size, step in zip(video_size, self.tubelet, strict=True)):
            raise ValueError(f"a video of (T, H, W) = {video_size} cannot be cut into tubelets of {self.tubelet}")
        t, h, w = (int(size) // step for size, step in zip(video_size, self.tubelet, strict=True))
        return t, h, w

    # The contract every model keeps

    def no_weight_decay(self) -> set[str]:
        """Parameters that are never decayed, besides biases and norms (those have one dimension)."""
        return {"latents"}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth: latents and cross-attends (which read the input), the shared blocks, the head."""
        return groups_by_depth(self, ("latents", "cross_attends."))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one of ``num_classes`` classes."""
        self.num_classes = num_classes
        self.head = classifier(self.width, num_classes, self.head_bias).to(self.latents)
