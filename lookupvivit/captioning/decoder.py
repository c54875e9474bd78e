"""An autoregressive transformer decoder that attends to a memory, such as the tokens of an image.

Its blocks are those of CapPa (Tschannen et al., 2023): pre-norm causal self-attention, cross-attention and MLP.

Shape legend: `lookupvivit.layers`, and L text tokens, V vocabulary size, E width of the memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lookupvivit.layers.attention import SelfAttention
from lookupvivit.layers.mlp import MLP
from lookupvivit.models.base import check_transformer

PAD, START, END = 0, 1, 2  # the first entries of every vocabulary
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>")


@dataclass
class BlockCache:
    """Keys and values that a block reuses from one generated token to the next, each (B, H, n, d).

    Attributes:
        keys, values: of the text tokens generated so far.
        memory_keys, memory_values: of the encoder's tokens.
    """

    keys: Tensor
    values: Tensor
    memory_keys: Tensor
    memory_values: Tensor


class CausalAttention(SelfAttention):
    """Self-attention in which each token attends to itself and to earlier tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        q, k, v = self._project(tokens)
        return self._merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, token: Tensor, cache: BlockCache) -> Tensor:
        """The next token (B, 1, D) -> (B, 1, D). Appends its key and value to the cache."""
        q, k, v = self._project(token)
        cache.keys = torch.cat([cache.keys, k], dim=2)
        cache.values = torch.cat([cache.values, v], dim=2)
        return self._merge_heads(F.scaled_dot_product_attention(q, cache.keys, cache.values))

    def _project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(tokens), "b l (three h d) -> three b h l d", three=3, h=self.num_heads)
        return q, k, v

    def _merge_heads(self, mixed: Tensor) -> Tensor:
        return self.out(rearrange(mixed, "b h l d -> b l (h d)"))


class CrossAttention(nn.Module):
    """Attention from text tokens to a memory of another width.

    Args:
        width: D, of the text tokens.
        memory_width: E, of the memory.
        num_heads: H.
    """

    def __init__(self, width: int, memory_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(memory_width, width), nn.Linear(memory_width, width)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (B, M, E) -> keys and values, each (B, H, M, d)."""
        keys = rearrange(self.k(memory), "b m (h d) -> b h m d", h=self.num_heads)
        values = rearrange(self.v(memory), "b m (h d) -> b h m d", h=self.num_heads)
        return keys, values

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Tokens (B, L, D), keys and values (B, H, M, d) -> (B, L, D)."""
        q = rearrange(self.q(tokens), "b l (h d) -> b h l d", h=self.num_heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, keys, values), "b h l d -> b l (h d)"))


class DecoderBlock(nn.Module):
    """Pre-norm causal self-attention, cross-attention to the memory, and MLP, each with a residual connection."""

    def __init__(self, width: int, memory_width: int, num_heads: int, mlp_ratio: float, eps: float, gelu: str) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = CausalAttention(width, num_heads)
        self.cross_norm = nn.LayerNorm(width, eps=eps)
        self.cross = CrossAttention(width, memory_width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, round(mlp_ratio * width), gelu)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Tokens (B, L, D), memory (B, M, E) -> (B, L, D)."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        tokens = tokens + self.cross(self.cross_norm(tokens), *self.cross.project_memory(memory))
        return tokens + self.mlp(self.mlp_norm(tokens))

    def init_cache(self, memory: Tensor) -> BlockCache:
        """The cache before the first token, for a memory (B, M, E)."""
        keys, values = self.cross.project_memory(memory)
        return BlockCache(keys[:, :, :0], values[:, :, :0], keys, values)

    def step(self, token: Tensor, cache: BlockCache) -> Tensor:
        """Like `forward`, for the next token (B, 1, D) only."""
        token = token + self.attention.step(self.attention_norm(token), cache)
        token = token + self.cross(self.cross_norm(token), cache.memory_keys, cache.memory_values)
        return token + self.mlp(self.mlp_norm(token))


class CaptionDecoder(nn.Module):
    """An autoregressive transformer decoder conditioned on a memory.

    Args:
        vocabulary: vocabulary size V. The first entries are `PAD`, `START` and `END`.
        memory_width: width E of the memory.
        width, depth, num_heads: embedding dimension D, number of blocks, attention heads H.
        length: maximum number of tokens of a caption, `END` included.
        tied: share the weights of the output layer with the token embedding. The GFLOPs of Table 3 do not depend on it;
            CapPa does not tie them.
        mlp_ratio, eps, gelu: as in LookupViT.

    Raises:
        ValueError: an argument is out of range.
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
        _require_int("vocabulary", vocabulary, minimum=len(SPECIAL_TOKENS) + 1)
        _require_int("length", length, minimum=2)
        self.vocabulary, self.length = vocabulary, length
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(1, length, width) * width**-0.5)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, memory_width, num_heads, mlp_ratio, eps, gelu) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.output = None if tied else nn.Linear(width, vocabulary)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        if self.output is not None:  # zero as in CapPa, so that the initial prediction is uniform
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Predict the token that follows each token.

        Args:
            tokens: (B, L) int64.
            memory: (B, M, E).

        Returns:
            Logits (B, L, V).

        Raises:
            ValueError: more tokens than ``length``.
        """
        num_tokens = tokens.shape[1]
        if num_tokens > self.length:
            raise ValueError(f"tokens: found {num_tokens} per caption, expected at most length = {self.length}")
        text = self.embedding(tokens) + self.positions[:, :num_tokens]
        for block in self.blocks:
            text = block(text, memory)
        return self._logits(text)

    def init_caches(self, memory: Tensor) -> list[BlockCache]:
        """One cache per block before the first token, for a memory (B, M, E)."""
        return [block.init_cache(memory) for block in cast(Iterable[DecoderBlock], self.blocks)]

    def step(self, token: Tensor, caches: list[BlockCache]) -> Tensor:
        """Predict the next token from the latest one; equal to `forward` on the whole text.

        Args:
            token: the latest token of each text, (B,) int64.
            caches: of `init_caches`; updated in place.

        Returns:
            Logits (B, V).
        """
        position = caches[0].keys.shape[2]
        text = self.embedding(token[:, None]) + self.positions[:, position : position + 1]
        for block, cache in zip(cast(Iterable[DecoderBlock], self.blocks), caches, strict=True):
            text = block.step(text, cache)
        return self._logits(text)[:, 0]

    def _logits(self, text: Tensor) -> Tensor:
        text = self.norm(text)
        return F.linear(text, self.embedding.weight) if self.output is None else self.output(text)


def _require_int(key: str, value: object, minimum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{key}: found {value!r}, expected an integer of at least {minimum}")
