"""Perceiver (Jaegle et al., ICML 2021), a baseline of Table 1: few latents attend to all pixels repeatedly.

At the published size (224 x 224 pixels, 512 latents of 1,024 channels, 8 x (1 cross-attention + 6 self-attentions)), it
has 44.9 M parameters and takes 707 GFLOPs with multiply and add counted separately.

Shape legend: B batch, L latents, D width of the latents, N input elements, C channels of an input element.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.patch_embed import as_video, split_into_tubelets, tubelet_grid
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.base import Model, check_transformer, create_classifier, groups_by_depth
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.sizes import Size, as_size


class CrossAttend(nn.Module):
    """Latents attend to the input with a single head as wide as the input, followed by an MLP (appendix C).

    Args:
        width: D.
        channels: C.
        mlp_ratio: hidden width of the MLP divided by D.
        eps, gelu: LayerNorm epsilon and GELU form.
    """

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
        q = self.q(self.latent_norm(latents)).unsqueeze(1)  # (B, 1, L, C)
        k, v = self.k(inputs).unsqueeze(1), self.v(inputs).unsqueeze(1)  # (B, 1, N, C)
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # (B, L, C)
        latents = latents + self.out(attended)
        return latents + self.mlp(self.mlp_norm(latents))


class Perceiver(Model):
    """Perceiver for images (T = 1) and video.

    Args:
        num_classes: K.
        input_size: (T, H, W) that the frequencies of the Fourier positions are made for.
        tubelet: (t, h, w), frames and pixels of an input element; (1, 1, 1), every pixel by itself, is the published
            one.
        num_latents, width: L, D.
        depth: number of self-attention blocks of a stage; all stages share them.
        stages: how often the latents attend to the input; the first cross-attention has weights of its own, the others
            share theirs.
        num_heads, mlp_ratio: of the self-attention blocks.
        bands: Fourier frequencies per axis.
        eps, gelu, classifier_bias: as in LookupViT.
    """

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
        classifier_bias: float = 0.0,
    ) -> None:
        super().__init__()
        check_transformer(width, depth, num_heads, mlp_ratio, 0.0, gelu, eps)
        for key, value in {"num_latents": num_latents, "stages": stages, "bands": bands}.items():
            if value < 1:
                raise ValueError(f"{key}: found {value}, expected at least 1")
        self.num_classes, self.width, self.bands, self.stages = num_classes, width, bands, stages
        self.input_size, self.tubelet, self.classifier_bias = as_size(input_size), as_size(tubelet), classifier_bias
        grid = self.grid(self.input_size)  # (t, h, w)
        self.axes = tuple(axis for axis in range(3) if grid[axis] > 1)  # an axis of one element needs no position
        channels = 3 * math.prod(self.tubelet) + len(self.axes) * (2 * bands + 1)
        self.latents = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, num_latents, width), std=0.02))
        self.cross_attends = nn.ModuleList(
            CrossAttend(width, channels, mlp_ratio, eps, gelu) for _ in range(min(stages, 2))
        )
        self.blocks = nn.ModuleList(ViTBlock(width, num_heads, mlp_ratio, 0.0, eps, gelu) for _ in range(depth))
        self.head = create_classifier(width, num_classes, classifier_bias)

    def forward(self, video: Tensor, return_intermediates: bool = False) -> ModelOutput:
        """Classify videos (B, 3, T, H, W) or images (B, 3, H, W) with values in [-1, 1].

        Args:
            return_intermediates: return, per stage, ``latents`` (B, L, D).

        Returns:
            ModelOutput: ``logits`` (B, K).
        """
        latents, intermediates = self.forward_features(video, return_intermediates)
        output = ModelOutput(logits=self.head(latents.mean(dim=1)))
        if return_intermediates:
            output["intermediates"] = intermediates
        return output

    def forward_features(
        self, video: Tensor, return_intermediates: bool = False
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Return the latents (B, L, D) after the last stage, and the intermediates of `forward`."""
        inputs = self.inputs(video)  # (B, N, C)
        latents = self.latents.expand(inputs.shape[0], -1, -1)  # (B, L, D)
        intermediates = []
        for stage in range(self.stages):
            latents = self.cross_attends[min(stage, 1)](latents, inputs)
            for block in self.blocks:
                latents = block(latents)
            if return_intermediates:
                intermediates.append({"latents": latents})
        return latents, intermediates

    def inputs(self, video: Tensor) -> Tensor:
        """Return the pixels of every input element and its Fourier positions, (B, N, C)."""
        video = as_video(video, self.tubelet)
        frames, height, width = video.shape[2:]
        grid = as_size(self.grid((frames, height, width)))  # integers, also under `torch.jit.trace`
        pixels = split_into_tubelets(video, self.tubelet).flatten(1, 3)  # (B, N, 3 t h w)
        pixels = pixels.unflatten(2, (3, -1)).transpose(2, 3).flatten(2)  # (B, N, t h w 3)
        # Computed in every call, for the size of this input: a traced program would capture a cached tensor.
        positions = []
        for axis in self.axes:
            along_axis = [1, 1, 1, -1]
            along_axis[axis] = grid[axis]
            positions.append(self._waves(axis, grid[axis], pixels).reshape(along_axis).expand(*grid, -1))
        position = torch.cat(positions, dim=-1).flatten(0, 2)  # (N, C - 3 t h w)
        return torch.cat([pixels, position.expand(pixels.shape[0], -1, -1)], dim=-1)  # (B, N, C)

    def _waves(self, axis: int, count: int, like: Tensor) -> Tensor:
        """(count, 2 bands + 1): sin and cos of pi f x with f from 1 to Nyquist, and x in [-1, 1] itself."""
        x = torch.linspace(-1, 1, count, device=like.device)
        nyquist = self.grid(self.input_size)[axis] / 2
        angles = torch.pi * x[:, None] * torch.linspace(1, nyquist, self.bands, device=like.device)
        return torch.cat([angles.sin(), angles.cos(), x[:, None]], dim=1).to(like.dtype)

    def grid(self, video_size: Size) -> Size:
        """Return the input elements (t, h, w) of a video (T, H, W); raises as `tubelet_grid`."""
        return tubelet_grid(video_size, self.tubelet)

    # The interface of `Model`

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, in addition to biases and norms (all 1-D parameters)."""
        return {"latents"}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth: latents and cross-attentions (which see the input), the blocks, the classifier."""
        return groups_by_depth(self, len(self.blocks), stem=("latents", "cross_attends."))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier with a newly initialised one for ``num_classes`` classes."""
        self.num_classes = num_classes
        self.head = create_classifier(self.width, num_classes, self.classifier_bias).to(self.latents)
