"""The interface that all models have, at a small size of every family."""

import math

import pytest
import torch
from torch import nn

import lookupvivit
from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing

# Names of the same family differ only in sizes, which `small_model` overrides.
FAMILIES = [
    "lookupvit_b16_5x5",
    "lookupvivit_b16x2_9x9x8",
    "lookupvivit_pico8x2_4x4x4",
    "vit_b16",
    "vivit_b16x2",
    "vivit_pico8x2",
    "tokenlearner_b16_at6",
    "tokenlearner_b16x2_at6",
    "perceiver_224",
    "perceiver_pico8x2",
]


def small_model(name: str, **overrides) -> tuple[nn.Module, torch.Tensor]:
    """The named model at a small size, with classifiers that pass gradients on, and a batch of two for it."""
    is_video = "x2" in name
    size, tubelet = ((4, 32, 32), (2, 8, 8)) if is_video else ((1, 32, 32), (1, 8, 8))
    options = {"width": 24, "depth": 3, "num_heads": 3, "input_size": size, "tubelet": tubelet}
    if name.startswith("lookup"):
        options["compressed_size"] = (2 if is_video else 1, 2, 3)
    if name.startswith("tokenlearner"):
        options |= {"learn_at": 1, "num_tokens": 5}
    if name.startswith("perceiver"):
        options |= {"num_latents": 5, "bands": 3, "stages": 3}
    torch.manual_seed(0)
    model = lookupvivit.create_model(name, 7, **options, **overrides)
    for key, parameter in model.named_parameters():
        if "head.weight" in key:  # initially zero, so that nothing below would get a gradient
            nn.init.normal_(parameter, std=0.1)
    return model, torch.randn(2, 3, *(size if is_video else size[1:]))


def loss_of(model, clip):
    output = model(clip)
    return sum(output[field].square().sum() for field in model.supervised)


@pytest.mark.parametrize("name", lookupvivit.list_models())
def test_every_name_builds_and_runs(name):
    with torch.device("meta"):
        model = lookupvivit.create_model(name, 7)
        t, h, w = model.input_size
        clip = torch.empty((2, 3, h, w) if t == 1 else (2, 3, t, h, w))
        assert model(clip).logits.shape == (2, 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_gets_a_finite_gradient(name):
    model, clip = small_model(name)
    loss_of(model, clip).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        # The softmax does not change if a constant is added to all keys: Perceiver's key bias has no gradient.
        cancels = key.endswith(".k.bias") and "cross_attends" in key
        assert cancels or parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", FAMILIES)
def test_layer_groups_and_exemptions_name_the_parameters(name):
    model, _ = small_model(name)
    names = sorted(key for key, _ in model.named_parameters())
    groups = model.layer_groups()
    assert sorted(key for group in groups for key in group) == names
    assert all(groups) and len(groups) == len(model.blocks) + 2
    assert model.no_weight_decay() <= set(names)


@pytest.mark.parametrize("name", FAMILIES)
def test_intermediates_end_in_the_features_and_change_no_logits(name):
    model, clip = small_model(name)
    model.eval()
    plain, detailed = model(clip), model(clip, return_intermediates=True)
    assert torch.equal(plain.logits, detailed.logits)
    features = model.forward_features(clip)
    final = features[1] if features[0] is None else features[0]
    assert any(torch.equal(final, value) for value in detailed.intermediates[-1].values())


@pytest.mark.parametrize("name", FAMILIES)
def test_state_dict_and_classifier(name):
    model, clip = small_model(name)
    logits = model.eval()(clip).logits
    assert logits.shape == (2, 7) and torch.isfinite(logits).all()
    other, _ = small_model(name)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(clip).logits, logits)
    model.reset_classifier(4)
    assert model(clip).logits.shape == (2, 4)


@pytest.mark.parametrize("name", [name for name in FAMILIES if "x2" not in name])
def test_an_image_is_a_video_of_one_frame(name):
    model, image = small_model(name)
    model.eval()
    assert torch.equal(model(image.unsqueeze(2)).logits, model(image).logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_and_projections_get_contiguous_tokens(name):
    """A sum has the strides of its first term, so that a layout other than token-major would persist to the end."""
    model, clip = small_model(name)
    strided = set()

    def check_strides(layer_name, tokens):
        if not tokens[0, 0].is_contiguous():  # of one sample: a batch may be an expanded sample
            strided.add(layer_name)

    for key, layer in model.named_modules():
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            layer.register_forward_pre_hook(lambda _, inputs, key=key: check_strides(key, inputs[0]))
    model(clip)
    assert not strided


@pytest.mark.parametrize("name", ["lookupvivit_b16x2_9x9x8", "vivit_b16x2", "tokenlearner_b16x2_at6", "perceiver_224"])
def test_activation_checkpointing_saves_memory_and_changes_no_gradient(name):
    model, clip = small_model(name, **({} if name.startswith("perceiver") else {"drop_path": 0.5}))
    gradients, saved = [], []
    for enable in (False, True):
        set_activation_checkpointing(model, enable)
        model.zero_grad()
        torch.manual_seed(1)
        saved.append(0)

        def pack(tensor):
            saved[-1] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_of(model, clip)
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize("name", FAMILIES)
def test_exported_programs_return_the_same_logits(name):
    model, clip = small_model(name)
    program = torch.export.export(model.eval(), (clip,)).module()
    torch.testing.assert_close(program(clip).logits, model(clip).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_models_return_the_same_output(name):
    torch._dynamo.reset()
    model, clip = small_model(name)
    compiled = torch.compile(model.eval(), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        output, expected = compiled(clip), model(clip)
    assert type(output) is type(expected) and list(output) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(output[key], value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lookupvit_b16_5x5", "lookupvivit_pico8x2_4x4x4"])
def test_inductor_returns_the_same_logits_and_gradients(name):
    torch._dynamo.reset()
    model, clip = small_model(name)
    results = []
    for call in (model, torch.compile(model)):
        model.zero_grad()
        logits = call(clip).logits
        logits.square().sum().backward()
        results.append([logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "num_classes", "options", "millions"),
    [
        ("vit_ti16", 1000, {}, 5.7),
        ("vit_s16", 1000, {}, 22.0),
        ("vit_b16", 1000, {"pooling": "token"}, 86.6),  # timm's counts
        ("vit_l16", 1000, {"pooling": "token"}, 304.3),
        ("vivit_b16x2", 400, {"pooling": "token"}, 88.9),  # Arnab et al., Table 2
        ("perceiver_224", 1000, {}, 44.9),  # Jaegle et al., Table 1
        ("lookupvit_b16_5x5", 1000, {}, 137.1),  # computed by hand from D x D projections with bias
        ("lookupvivit_b16x2_9x9x8", 400, {}, 139.0),
    ],
)
def test_published_parameter_counts(name, num_classes, options, millions):
    with torch.device("meta"):
        model = lookupvivit.create_model(name, num_classes, **options)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("name", ["lookupvit_b16_5x5", "vit_b16", "tokenlearner_b16_at6", "perceiver_224"])
def test_initialisation_is_that_of_the_parents(name):
    """Xavier-uniform kernels per square projection, MLP biases N(0, 1e-6), other biases and classifiers 0."""
    sizes = {"depth": 2, "width": 192, "num_heads": 3}
    if name.startswith("perceiver"):
        sizes |= {"num_latents": 64, "bands": 8, "stages": 2}
    if name.startswith("tokenlearner"):
        sizes["learn_at"] = 1
    torch.manual_seed(0)
    model = lookupvivit.create_model(name, 10, **sizes)
    for key, parameter in model.named_parameters():
        std = float(parameter.detach().std()) if parameter.numel() > 1 else 0
        if key in ("positions", "latents"):
            assert std == pytest.approx(0.02, rel=0.05)
        elif "head" in key:
            assert not parameter.any()
        elif "norm" in key:
            assert torch.equal(parameter, torch.full_like(parameter, float(key.endswith("weight"))))
        elif key == "embedding.projection.weight":  # LeCun normal: variance 1 / fan in, after the truncation
            assert std == pytest.approx(1 / math.sqrt(parameter[0].numel()), rel=0.02)
        elif key.endswith("bias"):
            is_in_mlp = any(part in key for part in ("mlp.", "score."))
            assert std == pytest.approx(1e-6 if is_in_mlp else 0, rel=0.5)
        else:
            rows, columns = (parameter.shape[0] // 3, parameter.shape[1]) if "qkv" in key else parameter.shape
            bound = math.sqrt(6 / (rows + columns))
            assert parameter.abs().max() <= bound and std == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_are_the_conventions_of_the_jax_parents(name):
    model, _ = small_model(name)
    assert getattr(model, "antialias", True)
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert {m.approximate for m in model.modules() if isinstance(m, nn.GELU)} == {"tanh"}


@pytest.mark.parametrize("name", ["lookupvivit_pico8x2_4x4x4", "vivit_pico8x2", "perceiver_pico8x2"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda clip: clip.byte(), r"found torch.uint8.* pass video.float\(\) / 127.5 - 1"),
        (lambda clip: clip.transpose(1, 2), r"found shape \(2, 8, 3, 64, 64\).* pass video.transpose\(1, 2\)"),
        (lambda clip: clip[:, :, 0], r"found shape \(2, 3, 64, 64\).* image variant such as lookupvit_b16_5x5"),
        (lambda clip: clip[0], r"found shape \(3, 8, 64, 64\).* pass clip\[None\]"),
        (lambda clip: clip[:, :1], r"found shape \(2, 1, 8, 64, 64\), expected a video \(B, 3, T, H, W\)"),
        (lambda clip: clip[:, :, :7], r"found \(T, H, W\) = \(7, 64, 64\), expected positive multiples"),
    ],
    ids=["bytes", "axes", "image", "no batch", "channels", "frames"],
)
def test_invalid_input_raises_and_names_the_conversion(name, change, words):
    with torch.device("meta"):
        model, clip = lookupvivit.create_model(name, 3).eval(), torch.zeros(2, 3, 8, 64, 64)
        with pytest.raises(ValueError, match=words):
            model(change(clip))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lookupvit_b16_5x6", {}, "did you mean 'lookupvit_b16_5x5'"),
        ("lookupvit_b16_5x5", {"dept": 3}, "did you mean 'depth'"),
        ("lookupvit_b16_5x5", {"num_heads": 5}, "num_heads: found 5"),
        ("lookupvit_b16_5x5", {"heads": "both", "classifiers": "both"}, "heads: found together with classifiers"),
        ("vit_b16", {"pooling": "cls"}, "pooling: found 'cls', expected one of gap, gap_norm, token"),
        ("tokenlearner_b16_at6", {"learn_at": 12}, "learn_at: found 12"),
        ("perceiver_224", {"stages": 0}, "stages: found 0"),
    ],
)
def test_invalid_names_and_arguments_raise(name, options, words):
    with torch.device("meta"), pytest.raises(ValueError, match=words):
        lookupvivit.create_model(name, 10, **options)


def test_arguments_of_earlier_releases_are_accepted():
    with torch.device("meta"):
        model = lookupvivit.create_model("lookupvit_b16_5x5", 3, heads="lookup", head_bias=-2.0)
    assert model.classifiers == "lookup" and model.classifier_bias == -2.0
