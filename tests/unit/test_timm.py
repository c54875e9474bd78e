"""The image models follow timm's interface."""

import weakref

import pytest
import timm
import torch
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2

import lookupvivit
import lookupvivit.timm

NAME, SMALL = "lookupvit_ti16_5x5", {"depth": 4, "num_classes": 7}


@pytest.fixture
def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def small_model(**arguments):
    torch.manual_seed(0)
    model = timm.create_model(NAME, **{**SMALL, **arguments})
    for classifier in model.get_classifier():
        if hasattr(classifier, "weight"):
            torch.nn.init.normal_(classifier.weight)
    return model.eval()


def test_every_image_model_is_registered():
    names = [name for name in lookupvivit.list_models() if name.startswith("lookupvit_")]
    assert sorted(timm.list_models("lookupvit*")) == names
    assert timm.is_model(NAME) and not timm.list_pretrained("lookupvit*")


def test_logits_equal_those_of_the_same_weights_in_lookupvivit(image):
    reference = lookupvivit.create_model(NAME, 7, depth=4).eval()
    model = small_model()
    reference.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(image), reference(image).logits, rtol=1e-5, atol=1e-6)
    features = model.forward_features(image)
    assert features.shape == (2, 25 + 4 * 6, model.num_features)
    assert model.num_prefix_tokens == 25
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    torch.testing.assert_close(model.forward_head(features), model(image))


def test_arguments_of_timm(image):
    model = small_model(img_size=(64, 96), drop_path_rate=0.3, drop_rate=0.5, compressed_size=(2, 3))
    assert model.positions.shape == (1, 1, 4, 6, 192) and model.num_prefix_tokens == 6
    assert model.blocks[-1].drop_path.rate == 0.3
    assert not torch.equal(model.train()(image), model(image))


def test_models_without_classifiers(image):
    model = small_model(num_classes=0)
    assert model(image).shape == (2, model.num_features) == (2, model.head_hidden_size)
    pre_logits = model.forward_head(model.forward_features(image), pre_logits=True)
    torch.testing.assert_close(pre_logits, model(image))
    model.reset_classifier(3)
    assert model(image).shape == (2, 3)
    for classifier in model.get_classifier():
        torch.nn.init.eye_(classifier.weight)
    torch.testing.assert_close(model(image), pre_logits[:, :3])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"in_chans": 1}, "in_chans"),
        ({"global_pool": "token"}, "global_pool"),
        ({"classifiers": "lookup"}, "classifiers"),
        ({"exchange": "gather"}, "exchange"),
        ({"compressed_size": (2, 5, 5)}, "size"),
        ({"pretrained": True}, "pretrained"),
    ],
)
def test_unsupported_arguments_raise(arguments, key):
    with pytest.raises(ValueError, match=f"^{key}: found"):
        small_model(**arguments)


def test_intermediates_end_in_the_final_features(image):
    model = small_model()
    final, found = model.forward_intermediates(image, indices=[1, 3], norm=True, return_prefix_tokens=True)
    torch.testing.assert_close(final, model.forward_features(image))
    lookup, compressed = found[-1]
    torch.testing.assert_close(torch.cat([compressed, lookup.flatten(2).mT], dim=1), final)
    early = model.forward_intermediates(image, indices=[1], norm=True, stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], found[0][0])
    rows = model.forward_intermediates(image, indices=1, output_fmt="NLC", intermediates_only=True)
    assert len(rows) == 1 and rows[0].shape == (2, 24, 192)
    assert len(model.blocks) == 4


def test_features_only(image):
    net = timm.create_model(NAME, depth=4, features_only=True, out_indices=(0, 2))
    assert [feature.shape for feature in net(image)] == [(2, 192, 4, 6)] * 2
    assert net.feature_info.channels() == [192, 192] and net.feature_info.reduction() == [16, 16]
    assert len(net.model.blocks) == 3


@pytest.mark.parametrize("source", ["local-dir", "file", "overlay"])
def test_weights_saved_by_timm_load(image, source, tmp_path):
    """At the size that they were saved for and at another one, with the same classes and with others."""
    model = small_model(img_size=64)
    save_for_hf(model, tmp_path, model_args={"depth": 4, "img_size": 64}, safe_serialization=True)
    name, arguments = NAME, {"depth": 4, "img_size": 64, "num_classes": 7}
    if source == "local-dir":
        name, arguments = f"local-dir:{tmp_path}", {}
    else:
        weights = {"file": str(tmp_path / "model.safetensors"), "num_classes": 7}
        key = {"file": "pretrained_cfg", "overlay": "pretrained_cfg_overlay"}[source]
        arguments[key] = {**model.pretrained_cfg, **weights} if source == "file" else weights
    again = timm.create_model(name, pretrained=True, **arguments).eval()
    assert torch.equal(again(image), model(image))
    larger = timm.create_model(name, pretrained=True, **{**arguments, "img_size": (128, 96), "num_classes": 3}).eval()
    assert larger.positions.shape == (1, 1, 8, 6, 192) and larger(image).shape == (2, 3)
    torch.testing.assert_close(larger.blocks[3].state_dict(), model.blocks[3].state_dict())
    backbone = timm.create_model(name, pretrained=True, features_only=True, **arguments)
    torch.testing.assert_close(backbone(image), model.forward_intermediates(image, 3, intermediates_only=True))


def test_the_default_configuration_names_the_first_layer():
    model = small_model()
    weight = model.get_submodule(model.default_cfg["first_conv"]).weight
    assert isinstance(model.get_submodule(model.default_cfg["first_conv"]), torch.nn.Conv3d)
    assert weight.shape[1] == 3


@pytest.mark.parametrize("wrap", [lambda model: model, torch.nn.Sequential])
def test_channels_last(image, wrap):
    model = wrap(small_model())
    expected = model(image)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(image.contiguous(memory_format=torch.channels_last)), expected)
    model.to(torch.float64, memory_format=torch.channels_last)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    torch.testing.assert_close(model(image.double()), expected.double(), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_intermediates_keep_the_selected_tokens_alone(image):
    """Neither attention nor the tokens of other blocks: those are released when the next block has run."""
    model, tokens = small_model(), []

    def observe(block, inputs, outputs):
        assert len(outputs) == 2
        tokens.append([weakref.ref(stream) for stream in outputs])
        if block is model.blocks[3]:
            alive.extend(i for i, streams in enumerate(tokens) if any(stream() is not None for stream in streams))

    for block in model.blocks:
        block.register_forward_hook(observe)
    alive = []
    model.forward_intermediates(image, indices=[0, 3], output_fmt="NLC", return_prefix_tokens=True)
    assert alive == [0, 2, 3]  # 2: the input of the last block


def test_layer_decay_follows_the_depth():
    model = small_model()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    depth = {name: position for position, names in enumerate(model.layer_groups()) for name in names}
    for name, parameter in model.named_parameters():
        assert scale[id(parameter)] == 0.5 ** (5 - depth[name]), name
    without_decay = {id(p) for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert id(model.positions) in without_decay
