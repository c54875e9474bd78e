"""Properties of LookupViT: one attention for both directions, free compressed sizes, ablations, a portable output."""

import copy

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from lookupvivit.layers.compressed_init import COMPRESSED_INITS
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.token_settings import check_compressed_size
from lookupvivit.models.vit import ViT

SIZES = {"input_size": (4, 32, 32), "tubelet": (2, 8, 8), "width": 32, "depth": 3, "num_heads": 4}


def small_model(**overrides) -> LookupViT:
    """A model with 2 x 4 x 4 lookup and 2 x 3 x 3 compressed tokens, and classifiers that pass gradients on."""
    torch.manual_seed(0)
    model = LookupViT(5, **{**SIZES, "compressed_size": (2, 3, 3), **overrides})
    for name, parameter in model.named_parameters():
        if "head.weight" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def video():
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def test_attention_rows_sum_to_one_and_serve_both_directions(video):
    model = small_model().eval()
    block, received = model.blocks[0], []
    block.infuse.register_forward_pre_hook(lambda _, inputs: received.append(inputs[1].attention))
    attention = model(video, return_intermediates=True).intermediates[0]["attention"]
    assert attention.shape == (2, 4, 2, 3, 3, 2, 4, 4)  # (B, H, tp, hp, wp, t, h, w)
    torch.testing.assert_close(attention.sum((-3, -2, -1)), torch.ones(2, 4, 2, 3, 3))
    assert torch.equal(received[0].flatten(), attention.flatten())
    torch.testing.assert_close(received[0].sum(2).mean(), torch.tensor(18 / 32))  # not renormalised: M / N on average


def test_the_compressed_size_is_an_argument_of_the_call(video):
    model = small_model().eval()
    small, own, large = (model(video, compressed_size=size) for size in [(1, 1, 1), (2, 3, 3), (2, 4, 4)])
    assert torch.equal(own.logits, model(video).logits)
    assert not torch.allclose(small.logits, large.logits)
    intermediates = model(video, compressed_size=(2, 4, 3), return_intermediates=True).intermediates[-1]
    assert intermediates["compressed"].shape == (2, 2, 4, 3, 32)
    assert intermediates["lookup"].shape == (2, 2, 4, 4, 32)
    with pytest.raises(ValueError, match="three positive integers"):
        model(video, compressed_size=(0, 1, 1))


def test_logits_are_the_mean_over_the_classifiers(video):
    output = small_model().eval()(video)
    torch.testing.assert_close(output.logits, (output.compressed_logits + output.lookup_logits) / 2)


def test_without_a_lookup_classifier_the_compressed_logits_are_the_same(video):
    both, alone = small_model().eval(), small_model(classifiers="compressed").eval()
    state = both.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    assert len(alone.state_dict()) < len(state)
    output = alone(video)
    assert torch.equal(output.logits, both(video).compressed_logits) and "lookup_logits" not in output


def test_positions_are_resampled_for_other_input_sizes():
    assert small_model().eval()(torch.randn(1, 3, 6, 48, 40)).logits.shape == (1, 5)


def test_sincos_positions_are_distinct_and_similar_for_neighbours():
    positions = small_model(position_init="sincos", input_size=(4, 64, 64)).positions.detach()[0]  # (t, h, w, D)
    table = positions.flatten(0, 2)
    assert (torch.cdist(table, table) + torch.eye(len(table))).min() > 0.1
    frame = positions[0]
    neighbours, opposite = (frame[:, 1:] - frame[:, :-1]).norm(dim=-1), (frame[:, -1] - frame[:, 0]).norm(dim=-1)
    assert neighbours.mean() < opposite.mean()
    unit = small_model(position_init="unit_sincos", input_size=(4, 64, 64)).positions.detach()[0]
    torch.testing.assert_close(unit, positions / 0.4)
    assert unit.abs().max() == 1


def test_drop_path_drops_whole_branches_only_during_training(video):
    model = small_model(drop_path=1.0)
    assert [block.drop_path.rate for block in model.blocks] == [0.0, 0.5, 1.0]
    before, after = model(video, return_intermediates=True).intermediates[1:]
    assert torch.equal(before["compressed"], after["compressed"])  # the last block adds nothing
    before, after = model.eval()(video, return_intermediates=True).intermediates[1:]
    assert not torch.equal(before["compressed"], after["compressed"])


def test_the_output_survives_export_and_tracing(video):
    model = small_model().eval()
    expected = model(video)
    exported = torch.export.export(model, (video,)).module()(video)
    assert set(exported) == set(expected)
    torch.testing.assert_close(exported["logits"], expected.logits)
    assert FlopCountAnalysis(copy.deepcopy(model), (video,)).unsupported_ops_warnings(False).total() > 0
    detailed = torch.export.export(model, (video,), {"return_intermediates": True}).module()
    intermediates = detailed(video, return_intermediates=True)["intermediates"]
    assert intermediates[0]["attention"].shape == (2, 4, 2, 3, 3, 2, 4, 4)


def test_check_compressed_size():
    check_compressed_size(small_model(), (2, 4, 4))
    with pytest.raises(ValueError, match=r"eval: found 3x4x4 .* at most 2x4x4"):
        check_compressed_size(small_model(), (3, 4, 4), "eval")
    for model in (small_model(compressed_init="random"), ViT(5, **SIZES)):
        with pytest.raises(ValueError, match=rf"compressed_size: found 1x1x1 .* this {type(model).__name__}"):
            check_compressed_size(model, (1, 1, 1))


# Ablations of Table 5, and every way to create compressed tokens

ABLATIONS = {
    "no lookup tokens": {"classifiers": "compressed", "exchange": "none", "compressed_init": "conv"},
    "no p->l": {"classifiers": "compressed", "exchange": "gather"},
    "no loss on lookup": {"classifiers": "compressed"},
    "no loss on primary": {"classifiers": "lookup"},
    **{name: {"compressed_init": name} for name in COMPRESSED_INITS},
}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_parameter_of_an_ablation_gets_a_gradient(ablation, video):
    model = small_model(**ABLATIONS[ablation])
    output = model(video)
    sum(output[field].square().sum() for field in model.supervised).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert sorted(name for group in model.layer_groups() for name in group) == sorted(dict(model.named_parameters()))


@pytest.mark.parametrize("ablation", ["no lookup tokens", "no p->l"])
def test_without_infusion_the_lookup_tokens_do_not_change(ablation, video):
    intermediates = small_model(**ABLATIONS[ablation])(video, return_intermediates=True).intermediates
    assert all(torch.equal(block["lookup"], intermediates[0]["lookup"]) for block in intermediates)
    assert ("attention" in intermediates[0]) == (ablation == "no p->l")


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_other_sizes_are_accepted_or_raise(ablation, video):
    model = small_model(**ABLATIONS[ablation])
    if model.compress.any_size:
        check_compressed_size(model, (1, 2, 2))
        assert model(video, compressed_size=(1, 2, 2)).logits.shape == (2, 5)
        return
    with pytest.raises(ValueError, match=r"compressed_size: found 1x2x2.* expected 2x3x3"):
        model(video, compressed_size=(1, 2, 2))


@pytest.mark.parametrize("exchange", ["gather", "none"])
def test_without_infusion_there_is_no_lookup_classifier(exchange):
    with pytest.raises(ValueError, match="classifiers: found 'both', expected one of compressed"):
        small_model(exchange=exchange)


def test_learned_tokens_have_no_weight_decay():
    assert small_model().no_weight_decay() == {"positions"}
    assert small_model(compressed_init="random").no_weight_decay() == {"positions", "compress.tokens"}


def test_random_tokens_do_not_depend_on_the_input(video):
    assert torch.equal(*small_model(compressed_init="random").tokenize(video)[1])


def test_the_conv_reduction_starts_as_the_mean_over_its_window(video):
    model = small_model(**ABLATIONS["no lookup tokens"], compressed_size=(2, 2, 3))
    lookup, compressed = model.tokenize(video)  # 4 x 4 to 2 x 3: windows of 2 x 2, two rows and one column apart
    frames = lookup.flatten(0, 1).movedim(-1, 1)  # (B t, D, h, w)
    means = nn.functional.avg_pool2d(frames, 2, stride=(2, 1)).movedim(1, -1)
    torch.testing.assert_close(compressed.flatten(0, 1), means)
