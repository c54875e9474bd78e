"""What every LookupViT keeps: shapes, gradients, one attention both ways, image = one frame, a portable output."""

import copy

import pytest
import torch

import lookupvivit
from lookupvivit.models.lookupvit import LookupViT

TINY = {"input_size": (4, 32, 32), "tubelet": (2, 8, 8), "compressed_size": (2, 3, 3), "width": 32, "depth": 3}


def tiny(**overrides) -> LookupViT:
    torch.manual_seed(0)
    model = LookupViT(5, **{**TINY, "num_heads": 4, **overrides})
    for name, parameter in model.named_parameters():
        if "head.weight" in name:  # zero at first: nothing behind it would get a gradient
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("heads", ["both", "compressed", "lookup"])
def test_every_parameter_receives_a_gradient(heads):
    model = tiny(heads=heads)
    output = model(torch.randn(2, 3, 4, 32, 32))
    sum(output[name].square().sum() for name in model.supervised).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("attention.qkv.bias"):  # a constant added to all keys cancels in the softmax
            q, k, v = parameter.grad.chunk(3)
            assert k.abs().max() < 1e-4 * q.abs().max()
            assert q.abs().max() > 0 and v.abs().max() > 0
        else:
            assert parameter.grad.abs().max() > 0, name


def test_attention_rows_sum_to_one_and_serve_both_ways():
    model = tiny().eval()
    block = model.blocks[0]
    seen = {}
    block.infuse.register_forward_pre_hook(lambda _, inputs: seen.update(attention=inputs[1].attention))
    output = model(torch.randn(2, 3, 4, 32, 32), return_intermediates=True)
    attention = output.intermediates[0]["attention"]
    assert attention.shape == (2, 4, 2, 3, 3, 2, 4, 4)  # (B, H, tp, hp, wp, t, h, w)
    torch.testing.assert_close(attention.sum((-3, -2, -1)), torch.ones(2, 4, 2, 3, 3))
    assert torch.equal(seen["attention"].flatten(), attention.flatten())
    received = seen["attention"].sum(2)  # not renormalised: M / N on average
    torch.testing.assert_close(received.mean(), torch.tensor(18 / 32))


def test_image_is_a_video_of_one_frame():
    model = tiny(input_size=(1, 32, 32), tubelet=(1, 8, 8), compressed_size=(1, 3, 3)).eval()
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(image).logits, model(image[:, :, None]).logits)


def test_logits_are_the_mean_of_the_heads_and_size_is_an_argument_of_the_call():
    model = tiny().eval()
    video = torch.randn(1, 3, 4, 32, 32)
    sizes = [(1, 1, 1), (2, 3, 3), (3, 5, 4)]
    outputs = [model(video, compressed_size=size) for size in sizes]
    assert torch.equal(outputs[1].logits, model(video).logits)
    assert not torch.allclose(outputs[0].logits, outputs[2].logits)
    for output in outputs:
        torch.testing.assert_close(output.logits, (output.compressed_logits + output.lookup_logits) / 2)
    features = model(video, compressed_size=(3, 5, 4), return_intermediates=True).intermediates[-1]
    assert features["compressed"].shape == (1, 3, 5, 4, 32)
    assert features["lookup"].shape == (1, 2, 4, 4, 32)


def test_compressed_head_alone_gives_the_same_compressed_logits():
    both = tiny().eval()
    alone = tiny(heads="compressed").eval()
    state = both.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    assert len(alone.state_dict()) < len(state)
    video = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(alone(video).logits, both(video).compressed_logits)
    assert "lookup_logits" not in alone(video)


def test_other_input_sizes_resample_the_positions():
    output = tiny().eval()(torch.randn(1, 3, 6, 48, 40))
    assert output.logits.shape == (1, 5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tiny()(torch.randn(1, 3, 32, 32)), "lookupvit_b16_5x5"),
        (lambda: tiny()(torch.randn(1, 3, 5, 32, 32)), "multiple"),
        (lambda: tiny()(torch.randn(3, 32, 32)), r"\(B, 3, T, H, W\)"),
        (lambda: tiny()(torch.randn(1, 3, 4, 32, 32), compressed_size=(0, 1, 1)), "positive"),
        (lambda: tiny(num_heads=5), "num_heads"),
        (lambda: lookupvivit.create_model("lookupvit_b16_5x6", 10), "did you mean 'lookupvit_b16_5x5'"),
        (lambda: lookupvivit.create_model("lookupvit_b16_5x5", 10, dept=3), "did you mean 'depth'"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_contract_of_names_groups_and_classifier():
    model = tiny()
    names = [name for name, _ in model.named_parameters()]
    groups = model.layer_groups()
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert len(groups) == len(model.blocks) + 2
    assert model.no_weight_decay() <= set(names)
    model.reset_classifier(9)
    assert model(torch.randn(1, 3, 4, 32, 32)).logits.shape == (1, 9)


def test_parameter_counts():
    """Derived by hand from D x D projections with bias, both heads."""
    count = {
        name: sum(p.numel() for p in lookupvivit.create_model(name, k).parameters())
        for name, k in (("lookupvit_b16_5x5", 1000), ("lookupvivit_b16x2_9x9x8", 400))
    }
    assert round(count["lookupvit_b16_5x5"] / 1e6, 1) == 137.1
    assert round(count["lookupvivit_b16x2_9x9x8"] / 1e6, 1) == 139.0


def test_sincos_positions_tell_every_place_and_keep_neighbours_close():
    table = tiny(position_init="sincos").positions.detach().flatten(0, 3)
    distance = torch.cdist(table, table) + torch.eye(len(table))
    assert distance.min() > 0.1
    grid = tiny(position_init="sincos", input_size=(4, 64, 64)).positions.detach()[0, 0]  # (h, w, D)
    near, far = (grid[:, 1:] - grid[:, :-1]).norm(dim=-1).mean(), (grid[:, -1] - grid[:, 0]).norm(dim=-1).mean()
    assert near < far


def test_drop_path_drops_whole_samples_only_while_training():
    model = tiny(drop_path=1.0)
    assert [block.drop_path.rate for block in model.blocks] == [0.0, 0.5, 1.0]
    features = model.forward_features(torch.randn(2, 3, 4, 32, 32), return_intermediates=True)[2]
    assert torch.equal(features[1]["compressed"], features[2]["compressed"])  # rate 1: nothing is added
    model.eval()
    features = model.forward_features(torch.randn(2, 3, 4, 32, 32), return_intermediates=True)[2]
    assert not torch.equal(features[1]["compressed"], features[2]["compressed"])


def test_output_passes_export_and_tracing_with_and_without_intermediates():
    from fvcore.nn import FlopCountAnalysis

    model, video = tiny().eval(), torch.randn(1, 3, 4, 32, 32)
    expected = model(video)
    exported = torch.export.export(model, (video,)).module()(video)
    assert set(exported) == set(expected)
    torch.testing.assert_close(exported["logits"], expected.logits)
    counter = FlopCountAnalysis(copy.deepcopy(model), (video,)).unsupported_ops_warnings(False)
    assert counter.total() > 0
    detailed = torch.export.export(model, (video,), {"return_intermediates": True}).module()
    intermediates = detailed(video, return_intermediates=True)["intermediates"]
    assert intermediates[0]["attention"].shape == (1, 4, 2, 3, 3, 2, 4, 4)
