"""The words that a caption decoder finds most probable: greedily, or by beam search. One token at a time, cached.

A caption's score is the sum of the log probabilities of its tokens, its end included, divided by their number to the
power of a length penalty: 1 is the mean, 0 the plain sum, which prefers short captions. A caption that reaches the most
tokens without an end is taken as it is. Padding and the start are never written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lookupvivit.captioning.model import END, PAD, START, BlockCache, CaptionDecoder


@torch.no_grad()
def greedy_search(
    decoder: CaptionDecoder, memory: Tensor, entries: int | None = None, length_penalty: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The most probable token, again and again.

    Args:
        memory: (B, M, E).
        entries: how many of the vocabulary's entries are in use; all by default.

    Returns:
        Tokens (B, L) int64, `END` in them where the caption ends and `PAD` after it, and scores (B,).
    """
    caches, token = decoder.start(memory), memory.new_full(memory.shape[:1], START, dtype=torch.long)
    total, count = memory.new_zeros(len(memory), dtype=torch.float32), torch.zeros_like(token)
    done, written = torch.zeros_like(token, dtype=torch.bool), []
    while len(written) < decoder.length and not done.all():
        best, choice = _log_probabilities(decoder.step(token, caches), entries).max(dim=-1)
        token = choice.masked_fill(done, PAD)
        total, count = total + best.masked_fill(done, 0.0), count + ~done
        done = done | (token == END)
        written.append(token)
    return torch.stack(written, dim=1), total / count**length_penalty


@torch.no_grad()
def beam_search(
    decoder: CaptionDecoder, memory: Tensor, beams: int = 4, entries: int | None = None, length_penalty: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The best of ``beams`` captions that are written side by side.

    After each token the ``beams`` beginnings of the highest scores go on, ended ones among them. The greedy caption
    always is one of these, so that no wider beam finds a worse one than `greedy_search`.

    Args:
        memory, entries: as for `greedy_search`.
        beams: K, captions kept per picture.

    Returns:
        As `greedy_search`.
    """
    batch = len(memory)
    caches = decoder.start(memory.repeat_interleave(beams, dim=0))  # (B * K, M, E)
    tokens = memory.new_zeros((batch, beams, 0), dtype=torch.long)
    last = memory.new_full((batch * beams,), START, dtype=torch.long)
    total = memory.new_full((batch, beams), -torch.inf, dtype=torch.float32)
    total[:, 0] = 0.0  # the beams start alike: one of them is enough
    count, done = torch.zeros_like(total), torch.zeros_like(total, dtype=torch.bool)
    while tokens.shape[-1] < decoder.length and not done.all():
        ahead = _log_probabilities(decoder.step(last, caches), entries).unflatten(0, (batch, beams))  # (B, K, V)
        follow = ahead[:, 0].argmax(dim=-1, keepdim=True)  # of the greedy caption, which is the first beam
        # An ended caption goes on in one way only, by padding that costs nothing.
        ahead = torch.where(done[..., None], torch.full_like(ahead, -torch.inf), ahead)
        ahead[..., PAD] = torch.where(done, 0.0, -torch.inf)
        follow = torch.where(done[:, :1], PAD, follow)
        sums, counts = total[..., None] + ahead, count + ~done
        scores = (sums / counts[..., None] ** length_penalty).flatten(1)  # (B, K * V)
        chosen = scores.scatter(1, follow, torch.inf).topk(beams, dim=1).indices  # (B, K), the greedy one first
        parent, token = chosen // ahead.shape[-1], chosen % ahead.shape[-1]
        total = sums.flatten(1).gather(1, chosen)
        count, done = counts.gather(1, parent), done.gather(1, parent) | (token == END)
        done = done | total.isneginf()  # fewer beginnings than beams: the rest are none
        tokens = torch.cat([tokens.gather(1, parent[..., None].expand_as(tokens)), token[..., None]], dim=-1)
        last = token.flatten()
        _reorder(caches, (parent + beams * torch.arange(batch, device=parent.device)[:, None]).flatten())
    scores = total / count**length_penalty
    best, place = scores.max(dim=1)
    return tokens[torch.arange(batch, device=place.device), place], best


def _log_probabilities(logits: Tensor, entries: int | None) -> Tensor:
    """(B, V) in float32, over what may be written."""
    logits = logits.float().index_fill(-1, torch.tensor([PAD, START], device=logits.device), -torch.inf)
    if entries is not None:
        logits[..., entries:] = -torch.inf
    return logits.log_softmax(dim=-1)


def _reorder(caches: list[BlockCache], order: Tensor) -> None:
    """Every beam gets its parent's keys and values; the memory's are the same for all beams of a picture."""
    for cache in caches:
        cache.keys, cache.values = cache.keys[order], cache.values[order]
