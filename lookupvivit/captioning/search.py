"""Search for the most probable caption, one cached token at a time: greedy search and beam search.

The score of a caption of n tokens, `END` included, is the sum of their log probabilities divided by n**length_penalty.
With a penalty of 1 this is the mean, with 0 the sum, which favours short captions. A caption that reaches the decoder's
maximum length has no `END`. `PAD` and `START` are never generated within a caption.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lookupvivit.captioning.decoder import END, PAD, START, BlockCache, CaptionDecoder


@torch.no_grad()
def greedy_search(
    decoder: CaptionDecoder, memory: Tensor, vocab_size: int | None = None, length_penalty: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Choose the most probable token at each step.

    Args:
        decoder: in eval mode.
        memory: (B, M, E).
        vocab_size: only tokens below it are generated; the decoder's whole vocabulary by default.
        length_penalty: of the score; see the module's docstring.

    Returns:
        Tokens (B, L) int64, with `PAD` after `END`, and scores (B,).
    """
    batch = len(memory)
    caches = decoder.init_caches(memory)
    token = memory.new_full((batch,), START, dtype=torch.long)
    total = memory.new_zeros(batch, dtype=torch.float32)
    count = torch.zeros_like(token)
    done = torch.zeros_like(token, dtype=torch.bool)
    generated: list[Tensor] = []
    while len(generated) < decoder.length and not done.all():
        log_prob, choice = _log_probabilities(decoder.step(token, caches), vocab_size).max(dim=-1)
        token = choice.masked_fill(done, PAD)
        total = total + log_prob.masked_fill(done, 0.0)
        count = count + ~done
        done = done | (token == END)
        generated.append(token)
    return torch.stack(generated, dim=1), total / count**length_penalty


@torch.no_grad()
def beam_search(
    decoder: CaptionDecoder,
    memory: Tensor,
    num_beams: int = 4,
    vocab_size: int | None = None,
    length_penalty: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Keep the ``num_beams`` highest-scoring prefixes, finished captions included, and return the best caption.

    The first beam always holds the greedy caption, so that the result never scores below `greedy_search`.

    Args:
        num_beams: K, captions kept per image.
        decoder, memory, vocab_size, length_penalty: as for `greedy_search`.

    Returns:
        As `greedy_search`.
    """
    batch = len(memory)
    caches = decoder.init_caches(memory.repeat_interleave(num_beams, dim=0))  # (B * K, M, E)
    tokens = memory.new_zeros((batch, num_beams, 0), dtype=torch.long)
    last = memory.new_full((batch * num_beams,), START, dtype=torch.long)
    total = memory.new_full((batch, num_beams), -torch.inf, dtype=torch.float32)
    total[:, 0] = 0.0  # all beams start alike, so only one is expanded in the first step
    count, done = torch.zeros_like(total), torch.zeros_like(total, dtype=torch.bool)
    first_of_image = num_beams * torch.arange(batch, device=memory.device)[:, None]
    while tokens.shape[-1] < decoder.length and not done.all():
        log_probs = _log_probabilities(decoder.step(last, caches), vocab_size).unflatten(0, (batch, num_beams))
        greedy = log_probs[:, :1].argmax(dim=-1).masked_fill(done[:, :1], PAD)  # (B, 1), of the first beam
        log_probs = _only_pad_after_end(log_probs, done)  # (B, K, V)
        sums, counts = total[..., None] + log_probs, count + ~done
        scores = (sums / counts[..., None] ** length_penalty).flatten(1)  # (B, K * V)
        chosen = scores.scatter(1, greedy, torch.inf).topk(num_beams, dim=1).indices  # (B, K), the greedy one first
        parent, token = chosen // log_probs.shape[-1], chosen % log_probs.shape[-1]
        total = sums.flatten(1).gather(1, chosen)
        count = counts.gather(1, parent)
        # A beam without a possible prefix (fewer prefixes than beams exist) counts as finished.
        done = done.gather(1, parent) | (token == END) | total.isneginf()
        tokens = torch.cat([tokens.gather(1, parent[..., None].expand_as(tokens)), token[..., None]], dim=-1)
        last = token.flatten()
        _reorder(caches, (first_of_image + parent).flatten())
    best_score, best_beam = (total / count**length_penalty).max(dim=1)
    return tokens[torch.arange(batch, device=best_beam.device), best_beam], best_score


def _log_probabilities(logits: Tensor, vocab_size: int | None) -> Tensor:
    """Log probabilities (B, V) in float32 over the tokens that may be generated."""
    logits = logits.float().index_fill(-1, torch.tensor([PAD, START], device=logits.device), -torch.inf)
    if vocab_size is not None:
        logits[..., vocab_size:] = -torch.inf
    return logits.log_softmax(dim=-1)


def _only_pad_after_end(log_probs: Tensor, done: Tensor) -> Tensor:
    """Let finished captions (B, K) continue in one way only: with `PAD`, at no cost."""
    log_probs = torch.where(done[..., None], torch.full_like(log_probs, -torch.inf), log_probs)
    log_probs[..., PAD] = torch.where(done, 0.0, -torch.inf)
    return log_probs


def _reorder(caches: list[BlockCache], parents: Tensor) -> None:
    """Give every beam (B * K,) its parent's text cache. All beams of an image share the memory's keys and values."""
    for cache in caches:
        cache.keys, cache.values = cache.keys[parents], cache.values[parents]
