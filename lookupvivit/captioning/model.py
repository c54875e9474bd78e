"""A captioner: a frozen encoder's tokens, and a transformer decoder that writes what it reads in them.

As the paper's Table 3 has it (LiT-decoder, Beyer et al., 2023): only the decoder learns, from random weights. Of a
LookupViT it is fed the compressed tokens alone (section 3.4), of other models all their tokens. The decoder is the
pre-norm one of CapPa (Tschannen et al., 2023): causal self-attention, cross-attention, MLP. Shape legend:
`lookupvivit.layers`, and L tokens of text, V entries of the vocabulary, E width of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lookupvivit.layers.attention import SelfAttention
from lookupvivit.layers.mlp import MLP
from lookupvivit.models.base import Size, check_transformer
from lookupvivit.models.described import Described
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.models.perceiver import Perceiver
from lookupvivit.models.registry import create_model

PAD, START, END = 0, 1, 2  # the first entries of every vocabulary
SPECIAL = ("<pad>", "<start>", "<end>")


@dataclass
class BlockCache:
    """What a block need not compute again: keys and values of the tokens so far and of the memory, (B, H, n, d)."""

    keys: Tensor
    values: Tensor
    memory_keys: Tensor
    memory_values: Tensor


class CausalAttention(SelfAttention):
    """Attention of every token with itself and those before it."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        q, k, v = self._split(tokens)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, token: Tensor, cache: BlockCache) -> Tensor:
        """The next token (B, 1, D) -> (B, 1, D); it joins the cache."""
        q, k, v = self._split(token)
        cache.keys, cache.values = torch.cat([cache.keys, k], dim=2), torch.cat([cache.values, v], dim=2)
        return self._merge(F.scaled_dot_product_attention(q, cache.keys, cache.values))

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(tokens), "b l (three h d) -> three b h l d", three=3, h=self.heads)
        return q, k, v

    def _merge(self, mixed: Tensor) -> Tensor:
        return self.out(rearrange(mixed, "b h l d -> b l (h d)"))


class CrossAttention(nn.Module):
    """Attention of text tokens with a memory of another width."""

    def __init__(self, width: int, memory_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(memory_width, width), nn.Linear(memory_width, width)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (B, M, E) -> keys and values (B, H, M, d)."""
        k, v = (rearrange(linear(memory), "b m (h d) -> b h m d", h=self.heads) for linear in (self.k, self.v))
        return k, v

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, L, D), (B, H, M, d) twice -> (B, L, D)."""
        q = rearrange(self.q(tokens), "b l (h d) -> b h l d", h=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, keys, values), "b h l d -> b l (h d)"))


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to the memory and MLP, each on normed tokens and added to the stream."""

    def __init__(self, width: int, memory_width: int, heads: int, mlp_ratio: float, eps: float, gelu: str) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = CausalAttention(width, heads)
        self.cross_norm = nn.LayerNorm(width, eps=eps)
        self.cross = CrossAttention(width, memory_width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, round(mlp_ratio * width), gelu)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Tokens (B, L, D), memory (B, M, E) -> (B, L, D)."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        tokens = tokens + self.cross(self.cross_norm(tokens), *self.cross.read(memory))
        return tokens + self.mlp(self.mlp_norm(tokens))

    def start(self, memory: Tensor) -> BlockCache:
        """The cache before the first token."""
        keys, values = self.cross.read(memory)
        return BlockCache(keys[:, :, :0], values[:, :, :0], keys, values)

    def step(self, token: Tensor, cache: BlockCache) -> Tensor:
        """As `forward`, of the next token (B, 1, D) alone."""
        token = token + self.attention.step(self.attention_norm(token), cache)
        token = token + self.cross(self.cross_norm(token), cache.memory_keys, cache.memory_values)
        return token + self.mlp(self.mlp_norm(token))


class CaptionDecoder(nn.Module):
    """Text, token by token, from a memory.

    Args:
        vocabulary: V, entries that a token can be; the first are `PAD`, `START` and `END`.
        memory_width: E.
        width, depth, num_heads: D, layers, H.
        length: most tokens of a caption, its end included.
        tied: the output layer shares the weights of the token embedding. Table 3's GFLOPs are the same either way;
            CapPa's are not tied.
        mlp_ratio, eps, gelu: as in LookupViT.
    """

    def __init__(
        self,
        vocabulary: int,
        memory_width: int,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        length: int = 32,
        tied: bool = False,
        mlp_ratio: float = 4,
        eps: float = 1e-6,
        gelu: str = "tanh",
    ) -> None:
        super().__init__()
        check_transformer(width, depth, num_heads, mlp_ratio, 0.0, gelu, eps)
        for key, value, least in (("vocabulary", vocabulary, len(SPECIAL) + 1), ("length", length, 2)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{key} must be a whole number of at least {least}, found {value!r}")
        self.vocabulary, self.length = vocabulary, length
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(1, length, width) * width**-0.5)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, memory_width, num_heads, mlp_ratio, eps, gelu) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.output = None if tied else nn.Linear(width, vocabulary)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        if self.output is not None:  # as classifiers here and CapPa's: the first predictions are all alike
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Tokens (B, L) int64, memory (B, M, E) -> logits (B, L, V) of the token after each.

        Raises:
            ValueError: more tokens than ``length``.
        """
        if tokens.shape[1] > self.length:
            raise ValueError(f"tokens: found {tokens.shape[1]} of them, must be at most length, {self.length}")
        text = self.embedding(tokens) + self.positions[:, : tokens.shape[1]]
        for block in self.blocks:
            text = block(text, memory)
        return self._logits(text)

    def start(self, memory: Tensor) -> list[BlockCache]:
        """The blocks' caches before the first token, of a memory (B, M, E)."""
        return [block.start(memory) for block in self.blocks]

    def step(self, token: Tensor, caches: list[BlockCache]) -> Tensor:
        """The last token of each text, (B,) int64 -> logits (B, V) of the next; equal to `forward` on the whole."""
        place = caches[0].keys.shape[2]
        text = self.embedding(token[:, None]) + self.positions[:, place : place + 1]
        for block, cache in zip(self.blocks, caches, strict=True):
            text = block.step(text, cache)
        return self._logits(text)[:, 0]

    def _logits(self, text: Tensor) -> Tensor:
        text = self.norm(text)
        return F.linear(text, self.embedding.weight) if self.output is None else self.output(text)


class Captioner(Described):
    """A frozen encoder and a decoder.

    Args:
        encoder: any model of the catalogue; what only its classifiers need is taken off it, the rest is frozen.
        vocabulary, decoder: of `CaptionDecoder`.

    Raises:
        ValueError: an encoder without a final norm of its compressed tokens, or an impossible decoder.
    """

    supervised = ("logits",)
    num_classes = None  # it has none

    def __init__(self, encoder: nn.Module, vocabulary: int, **decoder: Any) -> None:
        super().__init__()
        self.input_size = encoder.input_size
        self.set_encoder(encoder)
        width = encoder.latents.shape[-1] if isinstance(encoder, Perceiver) else encoder.width
        self.decoder = CaptionDecoder(vocabulary, width, **decoder)

    def set_encoder(self, encoder: nn.Module) -> None:
        """Read another model's tokens, of the same width."""
        self.encoder = _without_classifiers(encoder).requires_grad_(False).eval()

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks that learn."""
        return self.decoder.blocks

    def train(self, mode: bool = True) -> Captioner:
        """The encoder stays as it is tested: no path is dropped in it."""
        super().train(mode)
        self.encoder.eval()
        return self

    def memory(self, video: Tensor, compressed_size: Size | None = None) -> Tensor:
        """What the decoder reads of a video (B, 3, T, H, W) or an image (B, 3, H, W) in [-1, 1]: (B, M, E).

        Args:
            compressed_size: (t, h, w) compressed tokens of a LookupViT, its own by default.
        """
        size = {} if compressed_size is None else {"compressed_size": compressed_size}
        with torch.no_grad():
            features = self.encoder.forward_features(video, **size)
            if isinstance(self.encoder, LookupViT):
                return self.encoder.compressed_norm(features[0]).flatten(1, 3)
            if isinstance(self.encoder, Perceiver):
                return features[0]
            class_token, tokens, _ = features
            tokens = tokens.flatten(1, 3)
            if class_token is not None:
                tokens = torch.cat([class_token[:, None], tokens], dim=1)
            return self.encoder.norm(tokens)

    def forward(self, video: Tensor, tokens: Tensor | None = None, compressed_size: Size | None = None) -> ModelOutput:
        """The token after each of a caption's.

        Args:
            video: (B, 3, T, H, W) or (B, 3, H, W) in [-1, 1].
            tokens: (B, L) int64, `START` first; by default a whole caption of padding, for what counts costs.
            compressed_size: as for `memory`.

        Returns:
            ModelOutput: ``logits`` (B, L, V).
        """
        if tokens is None:
            tokens = torch.full((video.shape[0], self.decoder.length), PAD, device=video.device)
        return ModelOutput(logits=self.decoder(tokens, self.memory(video, compressed_size)))

    def no_weight_decay(self) -> set[str]:
        """Parameters that are never decayed, besides biases and norms (those have one dimension)."""
        return {"decoder.positions"}

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by depth for layer-wise lr decay: encoder and embedding, each decoder block, the output."""
        groups: list[list[str]] = [[] for _ in range(len(self.blocks) + 2)]
        for name, _ in self.named_parameters():
            _, part, *rest = name.split(".")
            if name.startswith("decoder.blocks."):
                groups[1 + int(rest[0])].append(name)
            else:
                after = name.startswith("decoder.") and part in ("norm", "output")
                groups[-1 if after else 0].append(name)
        return groups


def create_captioner(name: str, vocabulary: int, overrides: dict[str, Any], **decoder: Any) -> Captioner:
    """A captioner whose encoder is the catalogue's ``name`` with ``overrides``, all of it freshly initialised.

    Raises:
        ValueError, TypeError: as `create_model` and `Captioner`.
    """
    return Captioner(create_model(name, 1, **overrides), vocabulary, **decoder)


def _without_classifiers(encoder: nn.Module) -> nn.Module:
    """The model, less what its memory does not depend on: heads, and LookupViT's last update of the lookup tokens."""
    if isinstance(encoder, LookupViT):
        if encoder.heads == "lookup":
            raise ValueError(
                "heads must be 'both' or 'compressed' of an encoder, whose compressed tokens are read; found 'lookup'"
            )
        encoder.heads = "compressed"
        for part in ("lookup_norm", "lookup_head", "compressed_head"):
            encoder._modules.pop(part, None)
        last = encoder.blocks[-1]
        if last.exchange == "both":
            last.exchange = "gather"
            for part in ("infuse_norm", "infuse", "lookup_mlp_norm", "lookup_mlp"):
                delattr(last, part)
    else:
        encoder._modules.pop("head", None)
    return encoder
