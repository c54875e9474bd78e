"""The captioner: a frozen encoder, a causal decoder, a cache that changes nothing, searches that find what is best."""

from itertools import product

import pytest
import torch
from torch import nn

import lookupvivit
from lookupvivit.captioning.model import END, PAD, START, CaptionDecoder, Captioner, create_captioner
from lookupvivit.captioning.search import beam_search, greedy_search

IMAGE = {"input_size": (1, 16, 16), "tubelet": (1, 4, 4), "width": 16, "depth": 2, "num_heads": 2}
ENCODERS = {
    "lookupvit_ti16_3x3": {**IMAGE, "compressed_size": (1, 2, 2)},
    "vit_ti16": IMAGE,
    "tokenlearner_ti16_at6": {**IMAGE, "learn_at": 1, "num_tokens": 3},
    "perceiver_pico8x2": {
        "input_size": (1, 16, 16),
        "tubelet": (1, 4, 4),
        "num_latents": 6,
        "width": 16,
        "depth": 1,
        "stages": 2,
        "num_heads": 2,
        "mlp_ratio": 2,
        "bands": 4,
    },
}
TEXT = {"width": 24, "depth": 2, "num_heads": 3, "length": 7}


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """With opinions: no layer that starts at zero stays there."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def decoder(vocabulary=9, seed=0, **other) -> CaptionDecoder:
    return shaken(CaptionDecoder(vocabulary, 16, **{**TEXT, **other}), seed)


@pytest.mark.parametrize("tied", [False, True])
def test_no_token_sees_a_later_one_and_every_one_sees_the_memory(tied):
    model, memory = decoder(tied=tied), torch.randn(2, 5, 16)
    tokens = torch.randint(3, 9, (2, 7))
    logits = model(tokens, memory)
    for place in range(7):
        changed = tokens.clone()
        changed[:, place] = (tokens[:, place] - 2) % 6 + 3
        difference = (model(changed, memory) - logits).abs().amax(dim=(0, 2))
        assert (difference[:place] < 1e-6).all()
        assert difference[place] > 1e-4
    assert ((model(tokens, memory + torch.randn(16)) - logits).abs().amax(dim=2) > 1e-4).all()
    with pytest.raises(ValueError, match="found 8 of them, must be at most length, 7"):
        model(torch.zeros(2, 8, dtype=torch.long), memory)


def test_the_cache_changes_nothing():
    model, memory, tokens = decoder(), torch.randn(3, 5, 16), torch.randint(3, 9, (3, 7))
    caches = model.start(memory)
    one_by_one = torch.stack([model.step(tokens[:, place], caches) for place in range(7)], dim=1)
    torch.testing.assert_close(one_by_one, model(tokens, memory), atol=1e-5, rtol=1e-5)


def best_of_all(model, memory, penalty):
    """Every caption there is, scored by whole passes without a cache."""
    words, found = range(END, model.vocabulary), []
    for count in range(1, model.length + 1):
        for text in product(words, repeat=count):
            if END in text[:-1] or (count < model.length and text[-1] != END):
                continue
            logits = model(torch.tensor([[START, *text[:-1]]]), memory)[0].index_fill(
                -1, torch.tensor([PAD, START]), -torch.inf
            )
            score = logits.log_softmax(-1)[range(count), list(text)].sum() / count**penalty
            found.append((score.item(), text))
    return max(found)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_caption_of_all(seed, penalty):
    model, memory = decoder(vocabulary=6, seed=seed, length=4), torch.randn(1, 5, 16)
    score, text = best_of_all(model, memory, penalty)
    tokens, found = beam_search(model, memory, beams=4**4, length_penalty=penalty)
    assert float(found) == pytest.approx(score, abs=1e-4)
    assert [token for token in tokens[0].tolist() if token != PAD] == list(text)


@pytest.mark.slow
def test_one_beam_is_greedy_and_more_are_never_worse():
    torch.manual_seed(1)
    for seed in range(8):
        model, memory = decoder(vocabulary=40, seed=seed, length=9), torch.randn(5, 3, 16)
        for penalty in (0.0, 1.0):
            tokens, scores = greedy_search(model, memory, length_penalty=penalty)
            same, as_good = beam_search(model, memory, 1, length_penalty=penalty)
            assert torch.equal(same, tokens)
            torch.testing.assert_close(as_good, scores)
            for beams in (2, 3, 8):
                assert (beam_search(model, memory, beams, length_penalty=penalty)[1] >= scores - 1e-5).all()


def test_captions_end_once_and_hold_only_entries_in_use():
    model, memory = decoder(vocabulary=30, length=12), torch.randn(20, 3, 16)
    for tokens, _ in (greedy_search(model, memory, 8), beam_search(model, memory, 3, 8)):
        assert tokens.max() < 8 and not (tokens == START).any()
        for text in tokens.tolist():
            end = text.index(END) if END in text else len(text)
            assert PAD not in text[:end] and set(text[end + 1 :]) <= {PAD}
    # A picture's caption does not depend on the others of its batch.
    alone = torch.cat([beam_search(model, one[None], 3, 8)[1] for one in memory])
    torch.testing.assert_close(alone, beam_search(model, memory, 3, 8)[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_encoder_is_frozen_and_read_as_its_classifier_reads_it(name):
    classifier = shaken(lookupvivit.create_model(name, 5, **ENCODERS[name]))
    image, seen = torch.randn(2, 3, 16, 16), []
    head = getattr(classifier, "compressed_head", None) or classifier.head
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    classifier(image)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    model = Captioner(classifier, 9, **TEXT)
    memory = model.memory(image)
    assert memory.shape == (2, {"l": 4, "v": 16, "t": 3, "p": 6}[name[0]], 16)
    torch.testing.assert_close(memory.mean(dim=1), seen[0])

    model.train()
    assert not model.encoder.training and model.decoder.training
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):  # the output layer starts at zero, and nothing before it has a gradient until it has moved
        optimizer.zero_grad()
        model(image, torch.randint(3, 9, (2, 7))).logits.log_softmax(-1)[..., 3].sum().backward()
        optimizer.step()
    after = model.encoder.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    for key, parameter in model.named_parameters():
        assert (parameter.grad is None) == key.startswith("encoder."), key
        assert parameter.grad is None or parameter.grad.abs().sum() > 0 or key.endswith("cross.k.bias"), key
    grouped = [key for group in model.layer_groups() for key in group]
    assert sorted(grouped) == sorted(dict(model.named_parameters()))


def test_a_lookupvit_is_read_at_any_compressed_size_and_a_class_token_too():
    model = create_captioner("lookupvit_ti16_3x3", 9, ENCODERS["lookupvit_ti16_3x3"], **TEXT).eval()
    image = torch.randn(2, 3, 16, 16)
    assert model.memory(image, (1, 3, 4)).shape == (2, 12, 16)
    assert model(image, compressed_size=(1, 3, 4)).logits.shape == (2, 7, 9)
    with_token = create_captioner("vit_ti16", 9, {**IMAGE, "pooling": "token"}, **TEXT)
    assert with_token.memory(image).shape == (2, 17, 16)
    with pytest.raises(ValueError, match="heads must be 'both' or 'compressed' of an encoder"):
        create_captioner("lookupvit_ti16_3x3", 9, {**ENCODERS["lookupvit_ti16_3x3"], "heads": "lookup"})
