"""What every name of the catalogue promises, at a tiny size."""

import math

import pytest
import torch
from torch import nn

import lookupvivit
from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.models.registry import CATALOGUE

NAMES = lookupvivit.list_models()


def tiny(name: str, **overrides) -> tuple[nn.Module, torch.Tensor]:
    """The named model, small and with classifiers that let gradients through, and a batch of two for it."""
    video = "x2" in name
    size, tubelet = ((4, 32, 32), (2, 8, 8)) if video else ((1, 32, 32), (1, 8, 8))
    small = {"width": 24, "depth": 3, "num_heads": 3, "input_size": size, "tubelet": tubelet}
    if name.startswith("lookup"):
        small["compressed_size"] = (2 if video else 1, 2, 3)
    if name.startswith("tokenlearner"):
        small |= {"learn_at": 1, "num_tokens": 5}
    if name.startswith("perceiver"):
        small |= {"num_latents": 5, "bands": 3, "stages": 3}
    torch.manual_seed(0)
    model = lookupvivit.create_model(name, 7, **small, **overrides)
    for key, parameter in model.named_parameters():
        if "head.weight" in key:
            nn.init.normal_(parameter, std=0.1)
    return model, torch.randn(2, 3, *(size if video else size[1:]))


@pytest.mark.parametrize("name", NAMES)
def test_no_norm_or_projection_copies_its_tokens(name):
    """A sum keeps the strides of its first term: tokens laid out another way at the start stay so in every block."""
    model, clip = tiny(name)
    scattered = set()

    def look(layer_name, tokens):
        if not tokens[0, 0].is_contiguous():  # a batch may be one sample expanded
            scattered.add(layer_name)

    for key, layer in model.named_modules():
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            layer.register_forward_pre_hook(lambda _, inputs, key=key: look(key, inputs[0]))
    model(clip)
    assert not scattered


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    model, clip = tiny(name)
    output = model(clip)
    assert output.logits.shape == (2, 7) and torch.isfinite(output.logits).all()

    sum(output[head].square().sum() for head in model.supervised).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        if key.endswith(".k.bias"):  # a constant added to all keys cancels in the softmax
            assert "cross_attends" in key or parameter.grad.abs().max() > 0, key
        else:
            assert parameter.grad.abs().max() > 0, key

    names = sorted(key for key, _ in model.named_parameters())
    groups = model.layer_groups()
    assert sorted(key for group in groups for key in group) == names
    assert all(group for group in groups)
    assert model.no_weight_decay() <= set(names)

    model.eval()
    plain, seen = model(clip), model(clip, return_intermediates=True)
    torch.testing.assert_close(plain.logits, seen.logits, rtol=0, atol=0)
    last = seen.intermediates[-1]
    features = model.forward_features(clip)
    final = features[0] if features[0] is not None else features[1]
    assert any(torch.equal(final, value) for value in last.values())

    if clip.dim() == 4:  # an image is a video of one frame
        torch.testing.assert_close(model(clip.unsqueeze(2)).logits, plain.logits, rtol=0, atol=0)
    other, _ = tiny(name)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.eval()(clip).logits, plain.logits, rtol=0, atol=0)
    model.reset_classifier(4)
    assert model(clip).logits.shape == (2, 4)


@pytest.mark.parametrize("name", ["lookupvivit_b16x2_9x9x8", "vivit_b16x2", "tokenlearner_b16x2_at6", "perceiver_224"])
def test_recomputing_activations_changes_no_gradient(name):
    dropping = {} if name.startswith("perceiver") else {"drop_path": 0.5}
    model, clip = tiny(name, **dropping)
    gradients = []
    for recompute in (False, True):
        set_activation_checkpointing(model, recompute)
        model.zero_grad()
        torch.manual_seed(1)
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(clip).logits.square().sum()
        loss.backward()
        gradients.append(([parameter.grad.clone() for parameter in model.parameters()], kept))
    (plain, all_kept), (recomputed, few_kept) = gradients
    torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)
    assert few_kept < all_kept / 2


@pytest.mark.parametrize("name", NAMES)
def test_export_gives_the_same_output(name):
    model, clip = tiny(name)
    model.eval()
    exported = torch.export.export(model, (clip,)).module()
    torch.testing.assert_close(exported(clip).logits, model(clip).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiled_gives_the_same_output(name):
    torch._dynamo.reset()
    model, clip = tiny(name)
    compiled = torch.compile(model.eval(), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        found, expected = compiled(clip), model(clip)
    assert type(found) is type(expected) and list(found) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lookupvit_ti16_3x3", "lookupvivit_pico8x2_4x4x4"])
def test_inductor_gives_the_same_output_and_gradients(name):
    torch._dynamo.reset()
    model, clip = tiny(name)
    gradients = []
    for run in (model, torch.compile(model)):
        model.zero_grad()
        logits = run(clip).logits
        logits.square().sum().backward()
        gradients.append([logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_every_name_has_its_published_size():
    """Parameters of the library's own sizes, in millions, built without memory."""
    wanted = {
        "vit_ti16": 5.7,
        "vit_s16": 22.0,
        "vit_b16": 86.6,
        "vit_l16": 304.3,  # timm's, less the class token
        "vivit_b16x2": 88.9,
        "perceiver_224": 44.9,
    }  # Arnab et al., Table 2; Jaegle et al., Table 1
    for name, millions in wanted.items():
        with torch.device("meta"):
            model = lookupvivit.create_model(name, 400 if "x2" in name else 1000)
        found = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert found == pytest.approx(millions, abs=0.06), name
    for model, arguments in CATALOGUE.values():
        assert arguments.get("width", 1024) % arguments.get("num_heads", 8) == 0, model


KERNELS = [name for name in NAMES if name in ("lookupvit_b16_5x5", "vit_b16", "tokenlearner_b16_at6", "perceiver_224")]


@pytest.mark.parametrize("name", KERNELS)
def test_initialisation_is_the_parents(name):
    """Kernels xavier-uniform per square projection, MLP biases N(0, 1e-6), other biases 0, heads 0, positions 0.02."""
    torch.manual_seed(0)
    model = lookupvivit.create_model(
        name,
        10,
        depth=2,
        width=192,
        num_heads=3,
        **({"num_latents": 64, "bands": 8, "stages": 2} if name.startswith("perceiver") else {})
        | ({"learn_at": 1} if name.startswith("tokenlearner") else {}),
    )
    for key, parameter in model.named_parameters():
        spread = float(parameter.detach().std()) if parameter.numel() > 1 else 0
        if key in ("positions", "latents"):
            assert spread == pytest.approx(0.02, rel=0.05)
        elif "head" in key:
            assert not parameter.any()
        elif "norm" in key:
            assert torch.equal(parameter, torch.full_like(parameter, float(key.endswith("weight"))))
        elif key == "embedding.projection.weight":  # LeCun normal: variance 1 / fan in, also after the cut
            assert spread == pytest.approx(1 / math.sqrt(parameter[0].numel()), rel=0.02)
        elif key.endswith("bias"):
            in_mlp = any(part in key for part in ("mlp.", "score."))
            assert spread == pytest.approx(1e-6 if in_mlp else 0, rel=0.5)
        else:
            rows, columns = (parameter.shape[0] // 3, parameter.shape[1]) if "qkv" in key else parameter.shape
            bound = math.sqrt(6 / (rows + columns))
            assert parameter.abs().max() <= bound and spread == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_the_conventions_are_the_jax_parents(name):
    model, _ = tiny(name)
    assert getattr(model, "antialias", True)
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert {m.approximate for m in model.modules() if isinstance(m, nn.GELU)} == {"tanh"}


ABLATIONS = {
    "no lookup tokens": {"heads": "compressed", "exchange": "none", "compressed_init": "conv"},
    "no p->l": {"heads": "compressed", "exchange": "gather"},
    "no loss on lookup": {"heads": "compressed"},
    "no loss on primary": {"heads": "lookup"},
    "random": {"compressed_init": "random"},
}


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", ["lookupvit_b16_5x5", "lookupvivit_pico8x2_4x4x4"])
def test_ablations_of_table_5(name, ablation):
    model, clip = tiny(name, **ABLATIONS[ablation])
    output = model(clip, return_intermediates=True)
    sum(output[head].square().sum() for head in model.supervised).backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not dead
    names = sorted(key for key, _ in model.named_parameters())
    assert sorted(key for group in model.layer_groups() for key in group) == names
    lookups = [block["lookup"] for block in output.intermediates]
    if ablation in ("no lookup tokens", "no p->l"):
        assert all(torch.equal(lookup, lookups[0]) for lookup in lookups)
    if ablation == "no lookup tokens":
        assert "attention" not in output.intermediates[0]
    if "compressed_init" in ABLATIONS[ablation]:
        with pytest.raises(ValueError, match="compressed_init="):
            model(clip, compressed_size=(1, 2, 2))
    else:
        assert model(clip, compressed_size=(1, 2, 2)).logits.shape == (2, 7)


def test_random_tokens_do_not_know_the_input_and_conv_starts_as_the_mean():
    model, clip = tiny("lookupvit_b16_5x5", compressed_init="random")
    assert torch.equal(*model.tokenize(clip)[1])
    model, clip = tiny("lookupvit_b16_5x5", **ABLATIONS["no lookup tokens"])
    lookup, compressed = model.tokenize(clip)  # 4 x 4 to 2 x 3: windows of 2 x 2, two rows and one column apart
    wanted = nn.functional.avg_pool2d(lookup[:, 0].permute(0, 3, 1, 2), 2, stride=(2, 1)).permute(0, 2, 3, 1)
    torch.testing.assert_close(compressed[:, 0], wanted)


def test_token_learner_is_a_weighted_mean_per_frame():
    model, clip = tiny("tokenlearner_b16x2_at6")
    seen = model.eval()(clip, return_intermediates=True).intermediates
    before, selection = seen[0]["tokens"], seen[1]["selection"]  # (B, t, h, w, D), (B, t, S, h, w)
    torch.testing.assert_close(selection.sum((-2, -1)), torch.ones(2, 2, 5))
    learned = model.learner(before)[0]
    torch.testing.assert_close(learned, torch.einsum("btshw,bthwd->btsd", selection, before))
    moved = before.clone()
    moved[:, 1] += 1  # another second frame leaves the first frame's tokens alone
    torch.testing.assert_close(model.learner(moved)[0][:, 0], learned[:, 0])
    assert seen[1]["tokens"].shape == (2, 2, 1, 5, 24)


def test_perceiver_reads_pixels_with_their_place():
    model, clip = tiny("perceiver_pico8x2")
    inputs = model.inputs(clip)
    assert inputs.shape == (2, 2 * 4 * 4, 3 * 2 * 8 * 8 + 3 * 7)
    first = clip[:, :, :2, :8, :8].permute(0, 2, 3, 4, 1).flatten(1)
    torch.testing.assert_close(inputs[:, 0, : first.shape[1]], first)
    assert len({tuple(row.tolist()) for row in inputs[0, :, first.shape[1] :]}) == 32  # every place its own


@pytest.mark.parametrize("name", ["lookupvivit_pico8x2_4x4x4", "vivit_pico8x2", "perceiver_pico8x2"])
def test_what_is_no_video_is_told_with_what_would_be_right(name):
    model, clip = lookupvivit.create_model(name, 3).eval(), torch.zeros(2, 3, 8, 64, 64)
    for wrong, words in {
        "bytes": (clip.byte(), r"found torch.uint8: of bytes, give video.float\(\) / 127.5 - 1"),
        "axes": (clip.transpose(1, 2), r"found \(2, 8, 3, 64, 64\) .* give video.transpose\(1, 2\)"),
        "image": (clip[:, :, 0], r"found \(2, 3, 64, 64\): use an image variant such as lookupvit_b16_5x5"),
        "no batch": (clip[0], r"found \(3, 8, 64, 64\): .* of one clip clip\[None\]"),
        "colours": (clip[:, :1], r"expected a video \(B, 3, T, H, W\) .* found \(2, 1, 8, 64, 64\)"),
        "frames": (clip[:, :, :7], r"\(7, 64, 64\) cannot be cut into tubelets of \(2, "),
    }.values():
        with pytest.raises(ValueError, match=words):
            model(wrong)
