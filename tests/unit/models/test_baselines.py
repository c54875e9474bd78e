"""TokenLearner's learned tokens and Perceiver's input."""

import pytest
import torch

from lookupvivit.models.perceiver import Perceiver
from lookupvivit.models.token_learner import TokenLearner

SIZES = {"input_size": (4, 32, 32), "tubelet": (2, 8, 8), "width": 24, "depth": 3, "num_heads": 3}


def test_learned_tokens_are_weighted_means_per_frame():
    torch.manual_seed(0)
    model = TokenLearner(7, learn_at=1, num_tokens=5, **SIZES).eval()
    intermediates = model(torch.randn(2, 3, 4, 32, 32), return_intermediates=True).intermediates
    tokens, selection = intermediates[0]["tokens"], intermediates[1]["selection"]  # (B, t, h, w, D), (B, t, S, h, w)
    torch.testing.assert_close(selection.sum((-2, -1)), torch.ones(2, 2, 5))
    learned = model.learner(tokens)[0]
    torch.testing.assert_close(learned, torch.einsum("btshw,bthwd->btsd", selection, tokens))
    changed = tokens.clone()
    changed[:, 1] += 1  # the second frame does not affect the tokens of the first
    torch.testing.assert_close(model.learner(changed)[0][:, 0], learned[:, 0])
    assert intermediates[1]["tokens"].shape == (2, 2, 1, 5, 24)


def test_token_learner_rejects_a_class_token():
    with pytest.raises(ValueError, match="pooling: found 'token'"):
        TokenLearner(7, learn_at=1, pooling="token", **SIZES)


def test_perceiver_input_contains_pixels_and_distinct_positions():
    model = Perceiver(7, num_latents=5, bands=3, stages=2, **SIZES)
    clip = torch.randn(2, 3, 4, 32, 32)
    inputs = model.inputs(clip)
    assert inputs.shape == (2, 2 * 4 * 4, 3 * 2 * 8 * 8 + 3 * 7)
    first = clip[:, :, :2, :8, :8].permute(0, 2, 3, 4, 1).flatten(1)
    torch.testing.assert_close(inputs[:, 0, : first.shape[1]], first)
    assert len({tuple(row.tolist()) for row in inputs[0, :, first.shape[1] :]}) == 32
