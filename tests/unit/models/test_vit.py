"""ViT and ViViT against torch's transformer encoder."""

import pytest
import torch
from torch import nn

from lookupvivit.models.vit import ViT

WIDTH, DEPTH, NUM_HEADS, TUBELET = 32, 2, 4, (2, 8, 8)
PARAMETER_NAMES = {  # ours -> those of torch.nn.TransformerEncoderLayer
    "attention.qkv.weight": "self_attn.in_proj_weight",
    "attention.qkv.bias": "self_attn.in_proj_bias",
    "attention.out": "self_attn.out_proj",
    "attention_norm": "norm1",
    "mlp_norm": "norm2",
    "mlp.0": "linear1",
    "mlp.2": "linear2",
}


def small_vit(pooling: str, **options) -> ViT:
    torch.manual_seed(0)
    sizes = {"input_size": (4, 32, 32), "tubelet": TUBELET, "width": WIDTH, "depth": DEPTH, "num_heads": NUM_HEADS}
    model = ViT(5, pooling=pooling, **sizes, **options).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def torch_layer(block: nn.Module) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        WIDTH,
        NUM_HEADS,
        dim_feedforward=4 * WIDTH,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    )
    state = {}
    for name, tensor in block.state_dict().items():
        ours = next(prefix for prefix in PARAMETER_NAMES if name.startswith(prefix))
        state[name.replace(ours, PARAMETER_NAMES[ours], 1)] = tensor
    layer.load_state_dict(state)
    return layer.eval()


@pytest.mark.parametrize("pooling", ["gap", "gap_norm", "token"])
def test_equals_torchs_pre_norm_encoder(pooling):
    model = small_vit(pooling, gelu="none")
    video = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    tokens = nn.functional.conv3d(video, *model.embedding.projection.parameters(), stride=TUBELET)
    tokens = tokens.flatten(2).transpose(1, 2) + model.positions.flatten(1, 3)  # (B, N, D)
    if pooling == "token":
        tokens = torch.cat([model.class_token.expand(2, -1, -1), tokens], 1)
    for block in model.blocks:
        tokens = torch_layer(block)(tokens)

    def norm(features):
        return nn.functional.layer_norm(features, (WIDTH,), model.norm.weight, model.norm.bias, 1e-6)

    pooled = {
        "gap": lambda: norm(tokens).mean(1),
        "gap_norm": lambda: norm(tokens.mean(1)),
        "token": lambda: norm(tokens[:, 0]),
    }[pooling]()
    torch.testing.assert_close(model(video).logits, model.head(pooled), rtol=0, atol=1e-9)


def test_intermediates_exclude_the_class_token_and_other_input_sizes_work():
    model = small_vit("token")
    output = model(torch.randn(1, 3, 6, 48, 32, dtype=torch.float64), return_intermediates=True)
    assert output.logits.shape == (1, 5) and output.intermediates[-1]["tokens"].shape == (1, 3, 6, 4, WIDTH)
    assert model.no_weight_decay() == {"positions", "class_token"}
