"""Other people's models, small and of random weights."""

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

SMALL = {"width": 24, "depth": 2, "num_heads": 3}


def shake(model: nn.Module) -> nn.Module:
    """Random values everywhere, so that nothing is equal by being zero."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.2)
    return model.eval()


def save(model: nn.Module, folder) -> str:
    torch.save(model.state_dict(), folder / "theirs.pth")
    return str(folder / "theirs.pth")


def timm_vit(**arguments) -> nn.Module:
    return shake(
        VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5, **arguments)
    )


def augreg(width=24, heads=3, depth=2, grid=16, classes=5) -> dict[str, np.ndarray]:
    """A file as AugReg publishes them, of random numbers."""
    rng, each = np.random.default_rng(0), width // heads
    shapes = {
        "cls": (1, 1, width),
        "embedding/kernel": (8, 8, 3, width),
        "embedding/bias": (width,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + grid, width),
        "head/kernel": (width, classes),
        "head/bias": (classes,),
        "Transformer/encoder_norm/scale": (width,),
        "Transformer/encoder_norm/bias": (width,),
    }
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (width,), f"{block}/{norm}/bias": (width,)}
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}/{part}/kernel": (width, heads, each), f"{attention}/{part}/bias": (heads, each)}
        shapes |= {f"{attention}/out/kernel": (heads, each, width), f"{attention}/out/bias": (width,)}
        for part, (rows, columns) in {"Dense_0": (width, 4 * width), "Dense_1": (4 * width, width)}.items():
            shapes[f"{block}/MlpBlock_3/{part}/kernel"] = (rows, columns)
            shapes[f"{block}/MlpBlock_3/{part}/bias"] = (columns,)
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
