"""What timm's tests/test_models.py checks of every model (1.0.31), for the names that `lookupvivit.timm` registers.

Not applicable here:

test_model_inference, test_model_load_pretrained, test_model_features_pretrained
    They download weights, and none have been published. tests/unit/test_timm.py checks the same on files.
test_model_default_cfgs, test_model_forward_features
    They expect maps (B, D, h, w); timm excludes vision transformers, whose features are a sequence.
test_model_forward_torchscript, test_model_forward_fx_torchscript, and with features
    `torch.jit.script`, which torch deprecates, does not support the models' annotations. `torch.export` and
    `torch.jit.trace` are tested in tests/unit/models/test_interoperability.py.
"""

import math

import pytest
import torch

timm = pytest.importorskip("timm", reason="timm is not installed")
from timm.models import FeatureInfo, get_notrace_functions, get_notrace_modules  # noqa: E402
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names  # noqa: E402

import lookupvivit.timm  # noqa: E402, F401

# The other models differ from this one only in width, depth and compressed size.
NAMES = [
    pytest.param(name, marks=[] if name == "lookupvit_ti16_5x5" else [pytest.mark.slow])
    for name in timm.list_models("lookupvit*")
]
each_model = pytest.mark.parametrize("name", NAMES)


def images(model, batch_size=1, limit=384):
    """Random images of the model's size, or of sides of at most ``limit``."""
    channels, *sides = model.default_cfg["input_size"]
    return torch.randn(batch_size, channels, *(min(side, limit) for side in sides))


def build(name, **arguments):
    """A model with three of its blocks, which are alike. `test_forward` builds all of them."""
    return timm.create_model(name, depth=3, **arguments)


def check_gradients(model, outputs):
    outputs.mean().backward()
    assert not outputs.isnan().any() and outputs.shape[-1] == 42
    assert all(parameter.grad is not None for parameter in model.parameters())


@each_model
def test_forward(name):
    model = timm.create_model(name).eval()
    inputs = images(model)
    outputs = model(inputs)
    assert outputs.shape == (1, 1000) and not outputs.isnan().any()
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(inputs), outputs, rtol=1e-4, atol=1e-5)


@each_model
def test_backward_reaches_every_parameter(name):
    model = build(name, num_classes=42).train()
    check_gradients(model, model(images(model, 2, limit=128)))


@each_model
@torch.no_grad()
def test_default_configuration(name):
    model = build(name).eval()
    configuration, names = model.default_cfg, model.state_dict().keys()
    assert model.num_classes == 1000 and model.num_features > 0 and model.head_hidden_size > 0
    for layer in (configuration["first_conv"], *configuration["classifier"]):
        assert f"{layer}.weight" in names
    inputs = images(model)
    features = model.forward_features(inputs)
    pre_logits = model.forward_head(features, pre_logits=True)
    assert features.shape[-1] == model.num_features and pre_logits.shape == (1, model.head_hidden_size)
    model.reset_classifier(0)
    assert model.num_classes == 0 and torch.equal(model(inputs), pre_logits)
    model.reset_classifier(0, "")
    assert torch.equal(model(inputs), features)
    assert build(name, num_classes=0).eval()(inputs).shape == (1, model.num_features)
    assert build(name, num_classes=0, global_pool="").eval()(inputs).shape == features.shape


def check_feature_shapes(features, info, inputs):
    assert len(features) == len(info.channels())
    for feature, channels, reduction in zip(features, info.channels(), info.reduction(), strict=True):
        sides = [math.ceil(side / reduction) for side in inputs.shape[2:]]
        assert feature.shape == (1, channels, *sides) and not feature.isnan().any()


@each_model
@torch.no_grad()
def test_features_only(name):
    model = build(name, features_only=True, feature_cls="getter").eval()
    inputs = images(model, limit=96)
    assert len(model.feature_info.channels()) == 3
    check_feature_shapes(model(inputs), model.feature_info, inputs)


@each_model
@torch.no_grad()
def test_intermediates_of_all_blocks(name):
    model = build(name).eval()
    inputs = images(model, limit=96)
    final, intermediates = model.forward_intermediates(inputs, output_fmt="NCHW")
    check_feature_shapes(intermediates, FeatureInfo(model.feature_info, len(model.feature_info)), inputs)
    assert torch.equal(final, model.forward_features(inputs))
    model.set_grad_checkpointing()
    again, _ = model.forward_intermediates(inputs, output_fmt="NCHW")
    torch.testing.assert_close(again, final, rtol=1e-4, atol=1e-5)


def traced(model):
    """The model as a graph of torch.fx, with one output."""
    settings = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    train_nodes, eval_nodes = get_graph_node_names(model, tracer_kwargs=settings)
    nodes = {"train_return_nodes": train_nodes[-1:], "eval_return_nodes": eval_nodes[-1:]}
    graph = create_feature_extractor(model, **nodes, tracer_kwargs=settings)
    return lambda inputs: next(iter(graph(inputs).values()))


@each_model
@torch.no_grad()
def test_fx_forward(name):
    model = build(name).eval()
    inputs = images(model, limit=128)
    assert torch.equal(traced(model)(inputs), model(inputs))


@each_model
def test_fx_backward_reaches_every_parameter(name):
    model = build(name, num_classes=42).train()
    check_gradients(model, traced(model)(images(model, 2, limit=128)))
