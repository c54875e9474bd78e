"""Greedy and beam search: they find the captions with the highest scores, and only valid ones."""

from itertools import product

import pytest
import torch
from support.captioners import MEMORY_WIDTH, small_decoder

from lookupvivit.captioning.decoder import END, PAD, START
from lookupvivit.captioning.search import beam_search, greedy_search


def best_caption(model, memory, length_penalty):
    """Score and tokens of the best of all possible captions, computed without a cache."""
    scored = []
    for length in range(1, model.length + 1):
        for text in product(range(END, model.vocabulary), repeat=length):
            is_complete = text[-1] == END or length == model.length
            if END in text[:-1] or not is_complete:
                continue
            logits = model(torch.tensor([[START, *text[:-1]]]), memory)[0]
            logits = logits.index_fill(-1, torch.tensor([PAD, START]), -torch.inf)
            log_probs = logits.log_softmax(-1)[range(length), list(text)]
            scored.append((log_probs.sum().item() / length**length_penalty, text))
    return max(scored)


@pytest.mark.slow
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_beam_search_with_enough_beams_finds_the_best_caption(seed, length_penalty):
    model, memory = small_decoder(vocabulary=6, seed=seed, length=4), torch.randn(1, 5, MEMORY_WIDTH)
    best_score, best_text = best_caption(model, memory, length_penalty)
    tokens, score = beam_search(model, memory, num_beams=4**4, length_penalty=length_penalty)
    assert float(score) == pytest.approx(best_score, abs=1e-4)
    assert [token for token in tokens[0].tolist() if token != PAD] == list(best_text)


@pytest.mark.slow
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_one_beam_equals_greedy_search_and_more_beams_never_score_lower(length_penalty):
    torch.manual_seed(1)
    for seed in range(8):
        model, memory = small_decoder(vocabulary=40, seed=seed, length=9), torch.randn(5, 3, MEMORY_WIDTH)
        tokens, scores = greedy_search(model, memory, length_penalty=length_penalty)
        beam_tokens, beam_scores = beam_search(model, memory, 1, length_penalty=length_penalty)
        assert torch.equal(beam_tokens, tokens)
        torch.testing.assert_close(beam_scores, scores)
        for num_beams in (2, 3, 8):
            _, beam_scores = beam_search(model, memory, num_beams, length_penalty=length_penalty)
            assert (beam_scores >= scores - 1e-5).all()


@pytest.mark.parametrize("search", [greedy_search, beam_search], ids=["greedy", "beam"])
def test_captions_end_once_and_contain_only_tokens_of_the_vocabulary(search):
    model, memory = small_decoder(vocabulary=30, length=12), torch.randn(20, 3, MEMORY_WIDTH)
    tokens, _ = search(model, memory, vocab_size=8)
    assert tokens.max() < 8 and not (tokens == START).any()
    for text in tokens.tolist():
        end = text.index(END) if END in text else len(text)
        assert PAD not in text[:end] and set(text[end + 1 :]) <= {PAD}


def test_a_caption_does_not_depend_on_the_rest_of_its_batch():
    model, memory = small_decoder(vocabulary=30, length=12), torch.randn(20, 3, MEMORY_WIDTH)
    _, scores = beam_search(model, memory, 3)
    alone = torch.cat([beam_search(model, row[None], 3)[1] for row in memory])
    torch.testing.assert_close(alone, scores, atol=1e-5, rtol=1e-5)
