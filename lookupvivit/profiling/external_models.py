"""Models of other libraries to benchmark next to those of the registry, each with the same number of tokens.

Names are ``library:model``:

===========================  ===============================================================================
``timm:NAME``                timm's model of that name at its own image size (``timm:vit_base_patch16_224``)
``transformers:vivit``       Hugging Face's ViViT with scaled dot-product attention
``vit_pytorch:LookViT``      vit-pytorch's interpretation of LookupViT, for images
===========================  ===============================================================================

The last two take width, depth, attention heads, input and tokens from a model of the registry. All weights are random;
nothing is downloaded.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.sizes import Size

PACKAGES = {"timm": "timm", "transformers": "transformers", "vit_pytorch": "vit-pytorch"}  # import name -> PyPI name
NAMES = "timm:NAME, transformers:vivit or vit_pytorch:LookViT"


class ExternalModel(nn.Module):
    """A model of another library that is called and trained like those of the registry.

    Attributes:
        input_size: (T, H, W) pixels.
        lookup_tokens, compressed_tokens: N and M; M is None without compressed tokens.
    """

    supervised = ("logits",)

    def __init__(self, model: nn.Module, input_size: Size, lookup_tokens: int, compressed_tokens: int | None) -> None:
        super().__init__()
        self.model, self.input_size = model, input_size
        self.lookup_tokens, self.compressed_tokens = lookup_tokens, compressed_tokens

    def forward(self, video: Tensor) -> ModelOutput:
        """(B, 3, T, H, W) -> ``logits`` (B, K)."""
        return ModelOutput(logits=self.classify(video))

    def classify(self, video: Tensor) -> Tensor:
        """(B, 3, 1, H, W) -> (B, K), of an image model."""
        return self.model(video.squeeze(2))


class _ExternalVideoModel(ExternalModel):
    def classify(self, video: Tensor) -> Tensor:
        return self.model(pixel_values=video.transpose(1, 2)).logits  # (B, T, 3, H, W) in transformers


def is_external(name: str) -> bool:
    """Whether a name denotes a model of another library."""
    return ":" in name


def create_external_model(name: str, num_classes: int, like: Any) -> ExternalModel:
    """Build a model of another library.

    Args:
        name: ``library:model``.
        num_classes: number of classes K.
        like: the model of the registry whose sizes it takes, or None; unused for timm's models, which have their own.

    Raises:
        ValueError: an unknown name, a package that is not installed, or sizes that the model does not support.
    """
    library, _, model = name.partition(":")
    if library not in PACKAGES:
        raise ValueError(f"{name}: unknown external model; expected {NAMES}")
    package = _import(name, library)
    if library == "timm":
        return _timm(name, package, model, num_classes)
    builders = {"transformers:vivit": _vivit, "vit_pytorch:LookViT": _look_vit}
    if name not in builders:
        raise ValueError(f"{name}: unknown external model; expected {NAMES}")
    if like is None:
        raise ValueError(f"{name}: takes its sizes from a model of the registry; add one, such as {_example(name)}")
    return builders[name](name, package, like, num_classes)


def _example(name: str) -> str:
    return "lookupvit_b16_5x5" if name == "vit_pytorch:LookViT" else "vivit_b16x2"


def _import(name: str, library: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:  # installed, but one of its own imports is missing
            raise
        package = PACKAGES[library]
        raise ValueError(f"{name}: package {package} is not installed; run: pip install {package}") from None


def _timm(name: str, timm: ModuleType, model_name: str, num_classes: int) -> ExternalModel:
    if not timm.is_model(model_name):
        raise ValueError(f"{name}: timm {timm.__version__} has no model {model_name!r}")
    model = timm.create_model(model_name, num_classes=num_classes)
    num_patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    if num_patches is None:
        raise ValueError(f"{name}: found a {type(model).__name__} without patches, expected a ViT")
    _, height, width = model.default_cfg["input_size"]
    return ExternalModel(model, (1, height, width), num_patches, None)


def _vivit(name: str, transformers: ModuleType, like: Any, num_classes: int) -> ExternalModel:
    if not hasattr(like, "embedding"):
        raise ValueError(f"{name}: takes its sizes from a model with tubelets; add one, such as {_example(name)}")
    frames, height, width = like.input_size
    block = like.blocks[0]
    vit_block = getattr(block, "refine", block)  # a LookupViT block contains a ViT block
    config = transformers.VivitConfig(
        image_size=[height, width],
        num_frames=frames,
        tubelet_size=list(like.embedding.tubelet),
        hidden_size=like.width,
        num_hidden_layers=len(like.blocks),
        num_attention_heads=vit_block.attention.num_heads,
        intermediate_size=vit_block.mlp[0].out_features,
        num_labels=num_classes,
        attn_implementation="sdpa",
    )
    model = transformers.VivitForVideoClassification(config)
    return _ExternalVideoModel(model, like.input_size, math.prod(like.embedding.grid(like.input_size)), None)


def _look_vit(name: str, vit_pytorch: ModuleType, like: Any, num_classes: int) -> ExternalModel:
    """LookViT with the token counts of ``like``; one linear map embeds the patches instead of its 7 x 7 convolution.

    LookViT supports square images only: a video's lookup tokens become an image with as many patches, and its
    compressed tokens the nearest square.
    """
    if not isinstance(like, LookupViT):
        raise ValueError(f"{name}: takes its sizes from a LookupViT; add one, such as {_example(name)}")
    num_tokens = math.prod(like.embedding.grid(like.input_size))
    side, compressed_side = math.isqrt(num_tokens), round(math.sqrt(math.prod(like.compressed_size)))
    if side * side != num_tokens or compressed_side >= side:
        raise ValueError(
            f"{name}: found {num_tokens} lookup tokens and {compressed_side} x {compressed_side} compressed tokens, "
            "expected a square number of lookup tokens and fewer compressed tokens"
        )
    patch = like.embedding.tubelet[-1]
    block: Any = like.blocks[0]
    num_heads = block.refine.attention.num_heads
    head_width = like.width // num_heads
    attention: dict[str, Any] = {"heads": num_heads, "dim_head": head_width}
    attention |= {f"cross_attn_{key}": value for key, value in attention.items()}
    model = importlib.import_module(f"{vit_pytorch.__name__}.look_vit").LookViT(
        dim=like.width,
        image_size=side * patch,
        num_classes=num_classes,
        depth=len(like.blocks),
        patch_size=side * patch,
        highres_patch_size=patch,
        patch_conv_kernel_size=1,
        dropout=0.0,
        mlp_factor=block.refine.mlp[0].out_features / like.width,
        highres_mlp_factor=block.lookup_mlp[0].out_features / like.width,
        **attention,
    )
    # The constructor requires patches that divide the image, but uses them only for their number: side // patch.
    model.patch_size = side * patch // compressed_side
    return ExternalModel(model, (1, side * patch, side * patch), num_tokens, compressed_side**2)
