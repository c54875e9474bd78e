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


def test_patch_drop_rate_keeps_some_lookup_tokens_in_training_only():
    model, image = small_model(patch_drop_rate=0.75), torch.randn(2, 3, 32, 32)
    num_tokens = model.eval().forward_features(image).shape[1] - model.num_prefix_tokens
    assert model.train().forward_features(image).shape[1] == model.num_prefix_tokens + round(num_tokens / 4)
    assert model(image).shape == (2, model.num_classes)


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
        ({"global_pool": "map"}, "global_pool"),
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


def test_intermediates_in_other_forms(image):
    model = small_model()
    final, found = model.forward_intermediates(image, indices=[1, 3], return_prefix_tokens=True)
    named = model.forward_intermediates(image, indices=[1, 3], return_prefix_tokens=True, output_dict=True)
    assert torch.equal(named["image_features"], final)
    pairs = zip(named["image_intermediates"], named["image_intermediates_prefix"], strict=True)
    for (features, prefix), (same_features, same_prefix) in zip(found, pairs, strict=True):
        assert torch.equal(features, same_features) and torch.equal(prefix, same_prefix)
    assert list(model.forward_intermediates(image, output_dict=True, intermediates_only=True)) == [
        "image_intermediates"
    ]
    for feature, (expected, _) in zip(model.get_intermediate_layers(image, [1, 3]), found, strict=True):
        assert torch.equal(feature, expected.flatten(2).mT)
    assert torch.equal(model.get_intermediate_layers(image, reshape=True)[0], found[-1][0])
    features, prefix = model.get_intermediate_layers(image, norm=True, return_prefix_tokens=True)[0]
    assert torch.equal(torch.cat([prefix, features], dim=1), final)


def test_features_only(image):
    net = timm.create_model(NAME, depth=4, features_only=True, out_indices=(0, 2))
    assert [feature.shape for feature in net(image)] == [(2, 192, 4, 6)] * 2
    assert net.feature_info.channels() == [192, 192] and net.feature_info.reduction() == [16, 16]
    assert len(net.model.blocks) == 3


@pytest.mark.parametrize("stream", ["compressed", "lookup"])
def test_pooling(image, stream):
    """Of both streams, of one, or of none; chosen when the model is built or by `reset_classifier`."""
    both = small_model()
    reference = lookupvivit.create_model(NAME, 7, depth=4).eval()
    reference.load_state_dict(both.state_dict())
    one = small_model(global_pool=stream)
    logits, tokens = one(image), one.forward_features(image)
    torch.testing.assert_close(logits, reference(image)[f"{stream}_logits"], rtol=1e-5, atol=1e-6)
    part = tokens[:, :25] if stream == "compressed" else tokens[:, 25:]
    torch.testing.assert_close(one.forward_head(tokens, pre_logits=True), part.mean(1))
    unpooled = small_model(global_pool="")
    each = unpooled(image)
    assert each.shape == (2, 25 + 4 * 6, 7) and torch.equal(unpooled.forward_head(tokens, pre_logits=True), tokens)
    torch.testing.assert_close((each[:, :25].mean(1) + each[:, 25:].mean(1)) / 2, both(image), rtol=1e-5, atol=1e-5)
    unpooled.reset_classifier(0, stream)
    torch.testing.assert_close(unpooled(image), part.mean(1))
    assert small_model(global_pool="token").global_pool == "compressed"


@pytest.mark.parametrize("channels", [1, 4])
def test_channels(channels, tmp_path):
    """Pretrained kernels are adapted as timm adapts them: summed for one channel, repeated for more."""
    image = torch.randn(2, channels, 64, 64)
    model = small_model(in_chans=channels)
    assert model(image).shape == (2, 7) and model.in_chans == channels
    with pytest.raises(ValueError, match=rf"expected a video \(B, {channels}, T, H, W\)"):
        model(torch.randn(2, 3, 64, 64))
    source = small_model()
    save_for_hf(source, tmp_path, model_args={"depth": 4}, safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=channels).eval()
    kernel = source.embedding.projection.weight
    expected = {1: kernel.sum(1, keepdim=True), 4: torch.cat([kernel, kernel[:, :1]], 1) * 3 / 4}[channels]
    torch.testing.assert_close(loaded.embedding.projection.weight, expected)
    if channels == 1:
        torch.testing.assert_close(loaded(image), source(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_sizes():
    """By default, any image is accepted. Otherwise it has the model's size, which can be changed."""
    fixed, dynamic = small_model(img_size=64, dynamic_img_size=False), small_model(img_size=64)
    image = torch.randn(2, 3, 96, 64)
    with pytest.raises(ValueError, match=r"^img_size: found an image of \(96, 64\) \(H, W\), expected \(64, 64\)"):
        fixed(image)
    fixed.positions.requires_grad_(False)
    fixed.set_input_size((96, 64))
    assert fixed.positions.shape == (1, 1, 6, 4, 192) and not fixed.positions.requires_grad
    torch.testing.assert_close(fixed(image), dynamic(image))
    reference = lookupvivit.create_model(NAME, 7, depth=4, input_size=(1, 96, 64)).eval()
    reference.load_state_dict(fixed.state_dict())
    torch.testing.assert_close(fixed(image), reference(image).logits, rtol=1e-5, atol=1e-6)
    if hasattr(timm.models, "_input"):
        assert timm.models._input.get_model_traits(fixed)["img_size"] == (96, 64)


def test_another_patch_size(tmp_path):
    """The kernel is resized as timm resizes its own, also when weights are loaded."""
    model, vit = small_model(img_size=64), timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1)
    with torch.no_grad():
        vit.patch_embed.proj.weight.copy_(model.embedding.projection.weight[:, :, 0])
    save_for_hf(model, tmp_path, model_args={"depth": 4, "img_size": 64}, safe_serialization=True)
    vit.set_input_size(img_size=96, patch_size=24)
    model.set_input_size(96, 24)
    torch.testing.assert_close(model.embedding.projection.weight[:, :, 0], vit.patch_embed.proj.weight)
    assert model.positions.shape[2:4] == (4, 4) and model.feature_info[0]["reduction"] == 24
    image = torch.randn(2, 3, 96, 72)
    assert model.forward_intermediates(image, 1, intermediates_only=True)[0].shape == (2, 192, 4, 3)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=96, patch_size=24).eval()
    torch.testing.assert_close(loaded(image), model(image))


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
