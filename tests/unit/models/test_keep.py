"""Token keeping in the models: against a model built from the layers that is given only the kept tokens."""

import pytest
import torch
from torch import nn

from lookupvivit.layers.resample import resample
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.registry import create_model
from lookupvivit.models.token_learner import TokenLearner
from lookupvivit.models.vit import ViT
from lookupvivit.profiling.flops import count_cost

SIZES = {"input_size": (8, 32, 24), "tubelet": (2, 8, 8), "width": 24, "depth": 3, "num_heads": 3}
GRID = (4, 4, 3)


def build(cls, **overrides):
    torch.manual_seed(0)
    model = cls(5, **{**SIZES, **overrides})
    for name, parameter in model.named_parameters():
        if "head.weight" in name or name in ("positions", "class_token", "embedding.projection.bias"):
            nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


MODELS = {
    "LookupViT": lambda: build(LookupViT, compressed_size=(2, 3, 2)),
    "one classifier": lambda: build(LookupViT, compressed_size=(2, 3, 2), classifiers="compressed"),
    "ViT": lambda: build(ViT),
    "class token": lambda: build(ViT, pooling="token"),
    "gap_norm": lambda: build(ViT, pooling="gap_norm"),
}
models = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def video():
    return torch.randn(2, 3, 8, 32, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def kept():
    generator = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(48, generator=generator)[:17] for _ in range(2)])


def logits_of_only(model, video, kept):
    """The logits from the layers: every kept patch is cut out and embedded alone; the blocks see no other tokens."""
    clips = []
    for clip, indices in zip(video, kept.tolist(), strict=True):
        tokens = []
        for index in indices:
            t, h, w = index // 12, index // 3 % 4, index % 3
            patch = clip[:, 2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8]
            tokens.append(model.embedding.projection(patch[None]).flatten() + model.positions[0, t, h, w])
        clips.append(torch.stack(tokens))
    tokens = torch.stack(clips)  # (B, K, D)
    if isinstance(model, ViT):
        if model.class_token is not None:
            tokens = torch.cat([model.class_token.expand(2, -1, -1), tokens], dim=1)
        for block in model.blocks:
            tokens = block(tokens)
        if model.class_token is not None:
            return model.head(model.norm(tokens[:, 0]))
        return model.head(model.norm(tokens.mean(1)) if model.pooling == "gap_norm" else model.norm(tokens).mean(1))
    full = model.embedding(video) + model.positions
    compressed = resample(full, model.compressed_size).flatten(1, 3)  # of all tokens
    for block in model.blocks:
        compressed, tokens = block(compressed, tokens)
    logits = [model.compressed_head(model.compressed_norm(compressed).mean(1))]
    if model.classifiers == "both":
        logits.append(model.lookup_head(model.lookup_norm(tokens).mean(1)))
    return sum(logits) / len(logits)


@models
def test_kept_tokens_are_processed_as_if_there_were_no_others(name, video, kept):
    model = MODELS[name]()
    torch.testing.assert_close(
        model(video, keep=kept).logits, logits_of_only(model, video, kept), rtol=1e-10, atol=1e-9
    )


@models
def test_the_order_of_the_kept_tokens_does_not_matter(name, video, kept):
    model = MODELS[name]()
    expected, permuted = model(video, keep=kept), model(video, keep=kept.flip(1))
    torch.testing.assert_close(permuted.logits, expected.logits, rtol=1e-10, atol=1e-9)


@models
def test_all_tokens_are_bit_identical_to_a_call_without_keep(name, video):
    model, video = MODELS[name]().float(), video.float()
    for training in (False, True):
        model.train(training)
        expected = model(video).logits
        for keep in (None, 1, 1.0, "motion:1", "1"):
            assert torch.equal(model(video, keep=keep).logits, expected)
    model.eval()
    torch.testing.assert_close(model(video, keep=torch.arange(48).expand(2, -1)).logits, expected)


@models
@pytest.mark.parametrize("strategy", ["uniform", "random", "motion", "attention"])
def test_a_clip_does_not_depend_on_the_others_of_its_batch(name, strategy, video):
    model = MODELS[name]()
    together = model(video, keep=f"{strategy}:0.4").logits
    alone = [model(clip[None], keep=f"{strategy}:0.4").logits for clip in video]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-9)


@models
def test_intermediates_are_zero_at_dropped_tokens(name, video, kept):
    model = MODELS[name]()
    output = model(video, keep=kept, return_intermediates=True)
    torch.testing.assert_close(output.logits, model(video, keep=kept).logits)
    dropped = torch.ones(2, 48).scatter(1, kept, 0).view(2, *GRID) > 0
    for block in output.intermediates:
        tokens = block["tokens" if isinstance(model, ViT) else "lookup"]
        assert tokens.shape == (2, *GRID, 24)
        assert torch.equal((tokens == 0).all(-1), dropped)
        if "attention" in block:
            assert block["attention"].shape == (2, 3, 2, 3, 2, *GRID)
            torch.testing.assert_close(block["attention"].sum((-3, -2, -1)), torch.ones(2, 3, 2, 3, 2).double())
            assert torch.equal((block["attention"] == 0).flatten(1, 4).all(1), dropped)


@models
def test_every_parameter_gets_a_gradient(name, video):
    model = MODELS[name]().train()
    output = model(video, keep=0.5)
    sum(output[field].square().sum() for field in model.supervised).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


def test_attention_keeps_the_tokens_that_the_first_block_attends_to(video):
    model = MODELS["LookupViT"]()
    kept = model.select_tokens(video, "attention:0.25")
    attention = model(video, (1, 1, 1), return_intermediates=True).intermediates[0]["attention"]
    scores = attention.flatten(-3).mean((1, 2, 3, 4))  # (B, N)
    assert torch.equal(kept, scores.topk(12).indices.sort().values)


def test_merging_ends_with_the_share_and_keeps_the_grid(video):
    model = MODELS["ViT"]()
    output = model(video, keep="merge:0.5", return_intermediates=True)
    assert output.logits.isfinite().all() and not torch.allclose(output.logits, model(video).logits)
    for tokens, count in zip(output.intermediates, (40, 32, 24), strict=True):
        assert tokens["tokens"].shape == (2, *GRID, 24)
        assert len(tokens["tokens"][0].flatten(0, 2).unique(dim=0)) == count
    assert torch.equal(model(video, keep="merge:1").logits, model(video).logits)


@pytest.mark.parametrize(
    ("model", "keep", "words"),
    [
        (lambda: build(TokenLearner, learn_at=1), 0.5, "keep: found 0.5, expected none: this TokenLearner"),
        (lambda: build(LookupViT, compressed_init="conv", compressed_size=(2, 2, 2)), 0.5, "this LookupViT"),
        (MODELS["LookupViT"], "merge:0.5", "found merge:0.5, expected one of random, uniform, motion, attention"),
    ],
)
def test_what_a_model_does_not_support_is_named(model, keep, words, video):
    with pytest.raises(ValueError, match=words):
        model()(video, keep=keep)


def test_cost_at_full_size():
    """Lookup tokens are 66 % of 225 GFLOPs. The compressed tokens embed their own patches, which adds less than 1 %."""
    with torch.device("meta"):
        model = create_model("lookupvivit_b16x2_9x9x8", 400)
    for keep, gflops in ((0.5, 151), (0.3, 121)):
        assert count_cost(model, (1, 3, 32, 224, 224), keep=keep).macs / 1e9 == pytest.approx(gflops, rel=0.01)
