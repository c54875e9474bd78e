"""ViT and ViViT against torch's own transformer, and the contract they share with LookupViT."""

import pytest
import torch
from torch import nn

import lookupvivit
from lookupvivit.models.vit import ViT

TINY = {"input_size": (4, 32, 32), "tubelet": (2, 8, 8), "width": 32, "depth": 2, "num_heads": 4}


def tiny(**overrides) -> ViT:
    torch.manual_seed(0)
    model = ViT(5, **{**TINY, **overrides})
    nn.init.normal_(model.head.weight, std=0.1)
    return model


@pytest.mark.parametrize("pooling", ["gap", "token"])
def test_equals_torchs_pre_norm_encoder(pooling):
    model = tiny(pooling=pooling, gelu="none").double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    layers = []
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            32, 4, 128, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True, dtype=torch.float64
        )
        names = {
            "attention.qkv.weight": "self_attn.in_proj_weight",
            "attention.qkv.bias": "self_attn.in_proj_bias",
            "attention.out": "self_attn.out_proj",
            "attention_norm": "norm1",
            "mlp_norm": "norm2",
            "mlp.0": "linear1",
            "mlp.2": "linear2",
        }
        state = {}
        for name, tensor in block.state_dict().items():
            ours = next(prefix for prefix in names if name.startswith(prefix))
            state[name.replace(ours, names[ours], 1)] = tensor
        layer.load_state_dict(state)
        layers.append(layer.eval())
    video = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    tokens = nn.functional.conv3d(video, *model.embedding.projection.parameters(), stride=(2, 8, 8))
    tokens = tokens.flatten(2).transpose(1, 2) + model.positions.flatten(1, 3)
    if pooling == "token":
        tokens = torch.cat([model.class_token.expand(2, -1, -1), tokens], 1)
    for layer in layers:
        tokens = layer(tokens)
    normed = nn.functional.layer_norm(tokens, (32,), model.norm.weight, model.norm.bias, 1e-6)
    wanted = model.head(normed[:, 0] if pooling == "token" else normed.mean(1))
    torch.testing.assert_close(model(video).logits, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pooling", ["gap", "token"])
def test_contract(pooling):
    model = tiny(pooling=pooling)
    output = model(torch.randn(2, 3, 4, 32, 32), return_intermediates=True)
    assert output.intermediates[-1]["tokens"].shape == (2, 2, 4, 4, 32)
    sum(output[name].square().sum() for name in model.supervised).backward()
    silent = [n for n, p in model.named_parameters() if not p.grad.abs().max() > 0]
    assert not silent
    names = sorted(name for name, _ in model.named_parameters())
    assert sorted(name for group in model.layer_groups() for name in group) == names
    assert model.no_weight_decay() <= set(names)
    model.reset_classifier(9)
    assert model(torch.randn(1, 3, 6, 48, 32)).logits.shape == (1, 9)


def test_published_parameter_counts():
    """86.6 M and 304.3 M with a class token (timm's ViT-B/16, L/16); ViViT-B 88.9 M (Arnab et al., Table 2)."""

    def millions(name, classes, **overrides):
        model = lookupvivit.create_model(name, classes, **overrides)
        return sum(parameter.numel() for parameter in model.parameters()) / 1e6

    assert millions("vit_b16", 1000, pooling="token") == pytest.approx(86.6, abs=0.06)
    assert millions("vit_l16", 1000, pooling="token") == pytest.approx(304.3, abs=0.06)
    assert millions("vivit_b16x2", 400, pooling="token") == pytest.approx(88.9, abs=0.06)


def test_an_unknown_pooling_is_named():
    with pytest.raises(ValueError, match=r"pooling must be one of \('gap', 'gap_norm', 'token'\), found 'cls'"):
        tiny(pooling="cls")
