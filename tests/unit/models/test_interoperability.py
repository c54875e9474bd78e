"""What other libraries rely on: layers of torch's own classes that behave as such, outputs of tensors, torch.fx."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import lookupvivit
from lookupvivit import kernels
from lookupvivit.layers.patch_embed import TubeletProjection

SMALL = {"width": 64, "depth": 2, "num_heads": 4}
IMAGE = {**SMALL, "input_size": (1, 64, 64), "tubelet": (1, 8, 8)}
VIDEO = {**SMALL, "input_size": (4, 32, 32), "tubelet": (2, 8, 8)}
MODELS = {
    "image": ("lookupvit_b16_5x5", {**IMAGE, "compressed_size": (1, 2, 2), "drop_path": 0.5}),
    "video": ("lookupvivit_b16x2_9x9x8", {**VIDEO, "compressed_size": (1, 2, 2)}),
    "video, one classifier": ("lookupvivit_b16x2_9x9x8", {**VIDEO, "classifiers": "compressed"}),
    "random tokens": ("lookupvit_b16_5x5", {**IMAGE, "compressed_init": "random"}),
    "convolution": ("lookupvit_b16_5x5", {**IMAGE, "compressed_init": "conv"}),
    "ViT": ("vit_b16", {**IMAGE, "pooling": "token"}),
    "ViViT": ("vivit_b16x2", VIDEO),
    "TokenLearner": ("tokenlearner_b16_at6", {**IMAGE, "learn_at": 1}),
}


def build(name):
    torch.manual_seed(0)
    model_name, overrides = MODELS[name]
    model = lookupvivit.create_model(model_name, 5, **overrides)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("head.weight", "bias")):  # zero at first
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


def clips_for(model, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *model.input_size[model.tubelet[0] == 1 :], generator=generator)


@pytest.fixture
def folding():
    """A LookupViT that folds its projections on this machine, an input, and its logits."""
    model = build("image")
    clips = clips_for(model)
    with kernels.use("folded"):
        yield model, clips, model(clips).logits


def test_observed_layers_are_the_layers_of_their_class(folding):
    """Counters of FLOPs, per-sample gradients and attributions read inputs and results of layers in hooks."""
    model, clips, logits = folding
    calls = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            module.register_forward_hook(lambda _, inputs, result, name=name: calls.update({name: (inputs, result)}))
    torch.testing.assert_close(model(clips).logits, logits)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            (video,), result = calls.pop(name)
            expected = F.conv3d(video, module.weight, module.bias, module.stride)
        elif isinstance(module, nn.Linear):
            assert type(module) is nn.Linear, name
            (tokens,), result = calls.pop(name)
            expected = F.linear(tokens, module.weight, module.bias)
        else:
            continue
        torch.testing.assert_close(result, expected)
    assert not calls


def test_a_removed_hook_leaves_no_trace(folding):
    model, clips, logits = folding
    model.blocks[0].gather.v.register_forward_hook(lambda *_: None).remove()
    assert torch.equal(model(clips).logits, logits)


def test_every_linear_layer_is_quantised():
    model = build("image")
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    assert not [name for name, module in quantised.named_modules() if isinstance(module, nn.Linear)]
    clips = clips_for(model)
    error = (quantised(clips).logits - model(clips).logits).norm()
    assert 0 < error < 0.2 * model(clips).logits.norm()


def test_pruned_layers_follow_their_weights(folding):
    """Pruning computes the weight before every call of a layer."""
    model, clips, _ = folding
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv3d)]
    for layer in layers:
        prune.l1_unstructured(layer, "weight", 0.3)
    with torch.no_grad():
        for layer in layers:
            layer.weight_orig.mul_(1.5)
    pruned = model(clips).logits
    for layer in layers:
        prune.remove(layer, "weight")
    torch.testing.assert_close(pruned, model(clips).logits)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((2, 4, 4), {"stride": (2, 4, 4)}),
        ((1, 1, 1), {"stride": (1, 1, 1), "bias": False}),
        ((2, 4, 4), {"stride": (1, 2, 2), "padding": (1, 0, 2)}),
        ((2, 2, 2), {"stride": (2, 2, 2), "groups": 3, "dilation": (1, 2, 2)}),
    ],
)
def test_the_tubelet_projection_is_a_convolution(kernel, options):
    """LoRA creates another of the same class, with a kernel of 1 x 1 x 1 or without bias."""
    torch.manual_seed(0)
    ours, theirs = TubeletProjection(3, 6, kernel, **options), nn.Conv3d(3, 6, kernel, **options)
    theirs.load_state_dict(ours.state_dict())
    video = torch.randn(2, 3, 4, 8, 8)
    torch.testing.assert_close(ours(video), theirs(video))


def test_the_embedding_calls_a_wrapped_projection(folding):
    """As LoRA wraps it: a module without the attributes of a convolution."""
    model, clips, logits = folding
    model.embedding.projection = nn.Sequential(model.embedding.projection)
    assert torch.equal(model(clips).logits, logits)


@pytest.mark.parametrize("name", MODELS)
def test_blocks_return_tensors_alone(name):
    model, results = build(name), []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, result: results.append(result))
    model(clips_for(model))
    for result in results:
        assert all(isinstance(part, torch.Tensor) for part in (result if isinstance(result, tuple) else (result,)))


@pytest.mark.parametrize("name", MODELS)
def test_logits_only(name):
    """In a sequence of modules, under strict tracing, and as a graph of torch.fx in both modes and for other sizes."""
    model = build(name)
    clips, logits_only = clips_for(model), lookupvivit.LogitsOnly(model)
    with kernels.use("reference"):
        logits = model(clips).logits
        assert torch.equal(nn.Sequential(nn.Identity(), logits_only)(clips), logits)
        traced = torch.jit.trace(logits_only, clips, strict=True)
        torch.testing.assert_close(traced(clips), logits)
        graph = torch.fx.symbolic_trace(logits_only)
        assert torch.equal(graph(clips), logits)
        if "conv" not in name:  # the other models accept any size
            smaller = clips[:1, ..., :-16]
            assert torch.equal(graph(smaller), model(smaller).logits)
        training_graph = torch.fx.symbolic_trace(logits_only.train())
        torch.manual_seed(2)
        expected = model(clips).logits
        torch.manual_seed(2)
        assert torch.equal(training_graph(clips), expected)
