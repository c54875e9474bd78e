"""A captioner: a frozen encoder, and a text decoder that attends to the encoder's tokens (paper, Table 3).

As in LiT-decoder (Beyer et al., 2023), only the decoder is trained, from random weights. It reads the compressed tokens
of a LookupViT (section 3.4) and all tokens of other encoders.

Shape legend: `lookupvivit.layers`, and L text tokens, V vocabulary size, M memory tokens, E width of the encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lookupvivit.captioning.decoder import PAD, CaptionDecoder
from lookupvivit.models.base import Model
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.models.perceiver import Perceiver
from lookupvivit.models.registry import create_model
from lookupvivit.sizes import Size


class Captioner(Model):
    """A frozen encoder and a decoder.

    Args:
        encoder: any model of the registry. Its classifiers are removed in place and its other weights are frozen.
        vocabulary, decoder: arguments of `CaptionDecoder`.

    Raises:
        ValueError: the encoder has no compressed tokens with a final norm, or a decoder argument is out of range.
    """

    encoder: Any  # Any, because models of the registry share attributes that nn.Module does not declare
    decoder: CaptionDecoder

    def __init__(self, encoder: Model, vocabulary: int, **decoder: Any) -> None:
        super().__init__()
        self.set_encoder(encoder)
        self.input_size = self.encoder.input_size
        width = self.encoder.latents.shape[-1] if isinstance(encoder, Perceiver) else self.encoder.width
        self.decoder = CaptionDecoder(vocabulary, width, **decoder)

    def set_encoder(self, encoder: Model) -> None:
        """Replace the encoder by another one of the same width, whose classifiers are removed in place."""
        self.encoder = _remove_classifiers(encoder).requires_grad_(False).eval()

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]  # they belong to the decoder
        """The blocks that are trained."""
        return self.decoder.blocks

    def train(self, mode: bool = True) -> Captioner:
        """Set the decoder's mode. The frozen encoder stays in eval mode, without stochastic depth."""
        super().train(mode)
        self.encoder.eval()
        return self

    def memory(self, video: Tensor, compressed_size: Size | None = None) -> Tensor:
        """The normed encoder tokens that the decoder attends to, (B, M, E).

        Args:
            video: (B, 3, T, H, W) or an image (B, 3, H, W), in [-1, 1].
            compressed_size: (t, h, w) compressed tokens of a LookupViT; None for its own.
        """
        size = {} if compressed_size is None else {"compressed_size": compressed_size}
        with torch.no_grad():
            features = self.encoder.forward_features(video, **size)
            if isinstance(self.encoder, LookupViT):
                compressed, *_ = features  # (B, t, h, w, E)
                return self.encoder.compressed_norm(compressed).flatten(1, 3)
            if isinstance(self.encoder, Perceiver):
                latents, _ = features  # (B, M, E); a Perceiver has no final norm
                return latents
            class_token, tokens, _ = features
            tokens = tokens.flatten(1, 3)
            if class_token is not None:
                tokens = torch.cat([class_token[:, None], tokens], dim=1)
            return self.encoder.norm(tokens)

    def forward(self, video: Tensor, tokens: Tensor | None = None, compressed_size: Size | None = None) -> ModelOutput:
        """Predict the token that follows each token of a caption.

        Args:
            video: (B, 3, T, H, W) or (B, 3, H, W) in [-1, 1].
            tokens: (B, L) int64, beginning with `START`. None stands for a full-length row of padding; it is used
                where only the cost matters.
            compressed_size: as in `memory`.

        Returns:
            ModelOutput: ``logits`` (B, L, V).
        """
        if tokens is None:
            tokens = torch.full((video.shape[0], self.decoder.length), PAD, device=video.device)
        return ModelOutput(logits=self.decoder(tokens, self.memory(video, compressed_size)))

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay, in addition to biases and norms."""
        return {"decoder.positions"}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth for layer-wise lr decay: encoder and embeddings, each decoder block, the output."""
        groups: list[list[str]] = [[] for _ in range(len(self.blocks) + 2)]
        for name, _ in self.named_parameters():
            if name.startswith("decoder.blocks."):
                block = int(name.split(".")[2])
                groups[1 + block].append(name)
            elif name.startswith(("decoder.norm.", "decoder.output.")):
                groups[-1].append(name)
            else:
                groups[0].append(name)
        return groups


def create_captioner(name: str, vocabulary: int, overrides: dict[str, Any], **decoder: Any) -> Captioner:
    """Build a captioner with random weights.

    Args:
        name, overrides: the encoder, as for `create_model`.
        vocabulary, decoder: arguments of `CaptionDecoder`.

    Raises:
        ValueError, TypeError: as for `create_model` and `Captioner`.
    """
    return Captioner(create_model(name, 1, **overrides), vocabulary, **decoder)


def _remove_classifiers(encoder: Model) -> Model:
    """Remove in place what the memory does not depend on: classifiers, and LookupViT's last update of lookup tokens."""
    if not isinstance(encoder, LookupViT):
        encoder._modules.pop("head", None)
        return encoder
    if encoder.classifiers == "lookup":
        raise ValueError(
            "classifiers: found 'lookup', expected 'both' or 'compressed': the decoder reads the compressed tokens"
        )
    encoder.classifiers = "compressed"
    for name in ("lookup_norm", "lookup_head", "compressed_head"):
        encoder._modules.pop(name, None)
    last: Any = encoder.blocks[-1]
    if last.exchange == "both":
        last.exchange = "gather"
        for name in ("infuse_norm", "infuse", "lookup_mlp_norm", "lookup_mlp"):
            delattr(last, name)
    return encoder
