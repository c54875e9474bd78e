"""LookupViT over windows: against LookupViT itself, and against clips."""

import pytest
import torch

from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.features.extractor import FeatureExtractor
from lookupvivit.layers.patch_embed import EmbeddedVideo
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.recurrent import RecurrentLookupViT
from lookupvivit.models.token_settings import check_compressed_size

SIZES = {"tubelet": (2, 8, 8), "compressed_size": (1, 2, 2), "width": 32, "depth": 2, "num_heads": 2}


def recurrent(windows=3, **arguments):
    torch.manual_seed(0)
    model = RecurrentLookupViT(5, (4 * windows, 24, 24), windows, **SIZES, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # classifiers and C are zero at first
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture
def video():
    return torch.rand(2, 3, 12, 24, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_independent_windows_are_those_of_lookupvit(video):
    """Without C, a clip has the mean logits of its windows, and C is without effect at first."""
    model, single = recurrent(carry=False), LookupViT(5, (4, 24, 24), **SIZES).eval()
    single.load_state_dict(model.state_dict())
    windows = [single(window) for window in video.chunk(3, dim=2)]
    output = model(video)
    for name in ("logits", "compressed_logits", "lookup_logits"):
        torch.testing.assert_close(output[name], sum(window[name] for window in windows) / 3)
    new = RecurrentLookupViT(5, (12, 24, 24), 3, **SIZES).eval()
    new.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(new(video)["logits"], windows[-1]["logits"])


def test_steps_are_the_clip_that_ends_with_them(video):
    model, state = recurrent(), None
    for window in video.chunk(3, dim=2):
        output, state = model.step(window, state)
    assert state.shape == (2, 1, 2, 2, 32)
    for name, expected in model(video).items():
        torch.testing.assert_close(output[name], expected)
    torch.testing.assert_close(model(EmbeddedVideo(model.embedding(video)))["logits"], output.logits)
    longer, _ = model.step(video[:, :, :4], state)
    assert longer.logits.shape == (2, 5)


def test_the_last_window_depends_on_all_before(video):
    model = recurrent()
    for frame in (0, 5, 11):
        changed = video.clone()
        changed[:, :, frame] = 0
        assert not torch.allclose(model(changed)["logits"], model(video)["logits"])


def test_gradients_reach_every_parameter(video):
    model = RecurrentLookupViT(5, (12, 24, 24), 3, **SIZES)
    torch.nn.init.normal_(model.compressed_head.weight)  # a classifier that is zero passes no gradient on
    torch.nn.init.normal_(model.lookup_head.weight)
    model(video)["logits"].square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.carry[1].weight.grad.abs().sum() > 0


def test_intermediates_cover_the_clip(video):
    model = recurrent()
    blocks = model(video, return_intermediates=True).intermediates
    assert [block["lookup"].shape for block in blocks] == [(2, 6, 3, 3, 32)] * 2
    assert [block["compressed"].shape for block in blocks] == [(2, 3, 2, 2, 32)] * 2
    attention = blocks[0]["attention"]
    assert attention.shape == (2, 2, 3, 2, 2, 6, 3, 3)
    torch.testing.assert_close(attention.sum((-3, -2, -1)), torch.ones(2, 2, 3, 2, 2))
    for window in range(3):
        own = attention[:, :, window, ..., 2 * window : 2 * window + 2, :, :]
        torch.testing.assert_close(own.sum((-3, -2, -1)), torch.ones(2, 2, 2, 2))


def test_stored_tokens_are_those_of_the_last_window():
    model = recurrent()
    clips = torch.randint(256, (2, 3, 12, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    features = FeatureExtractor(model, [1])(clips)
    with torch.no_grad():
        compressed, lookup, _ = model.forward_features(to_model_input(clips))
    torch.testing.assert_close(torch.from_numpy(features["block1_compressed"]), compressed)
    torch.testing.assert_close(torch.from_numpy(features["block1_lookup"]), lookup)


def test_what_does_not_fit(video):
    model = recurrent()
    with pytest.raises(ValueError, match="windows: found 5, expected a divisor of 12 frames"):
        RecurrentLookupViT(5, (12, 24, 24), 5, **SIZES)
    with pytest.raises(ValueError, match="found 4 tokens along time, expected a multiple of 3"):
        model(video[:, :, :8])
    with pytest.raises(ValueError, match=r"keep: found 0\.5, expected none"):
        model(video, keep=0.5)
    check_compressed_size(model, (2, 3, 3))
    with pytest.raises(ValueError, match="expected at most 2x3x3"):
        check_compressed_size(model, (3, 3, 3))
