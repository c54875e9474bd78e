"""Models of other libraries to measure beside those of the catalogue, each at the same number of tokens.

Names are ``library:model``:

===========================  ===============================================================================
``timm:NAME``                timm's model of that name at its own picture size (``timm:vit_base_patch16_224``)
``transformers:vivit``       Hugging Face's ViViT with scaled dot-product attention
``vit_pytorch:LookViT``      vit-pytorch's reading of LookupViT, for pictures
===========================  ===============================================================================

The last two have no sizes of their own: they take width, depth, heads, input and tokens of a model of the catalogue.
All start from random weights; nothing is downloaded.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from lookupvivit.models.base import Size
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.outputs import ModelOutput

PACKAGES = {"timm": "timm", "transformers": "transformers", "vit_pytorch": "vit-pytorch"}  # as imported, as installed
KNOWN = "timm:NAME, transformers:vivit or vit_pytorch:LookViT"


class Peer(nn.Module):
    """A model of another library, called and trained as those of the catalogue are.

    Attributes:
        input_size: (T, H, W) pixels.
        lookup_tokens, compressed_tokens: N, and M or None.
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
        """(B, 3, 1, H, W) -> (B, K), of a model for pictures."""
        return self.model(video.squeeze(2))


class _VideoPeer(Peer):
    def classify(self, video: Tensor) -> Tensor:
        return self.model(pixel_values=video.transpose(1, 2)).logits  # frames come before colours there


def is_peer(name: str) -> bool:
    """Whether a name is one of another library."""
    return ":" in name


def create_peer(name: str, num_classes: int, like: nn.Module | None) -> Peer:
    """Build a model of another library.

    Args:
        like: the model of the catalogue whose sizes it takes; timm's have their own.

    Raises:
        ValueError: an unknown name, a package that is not installed, or sizes that the peer cannot have.
    """
    library, _, model = name.partition(":")
    if library not in PACKAGES:
        raise ValueError(f"unknown peer {name!r}; peers are {KNOWN}")
    package = _import(name, library)
    if library == "timm":
        return _timm(name, package, model, num_classes)
    builders = {"transformers:vivit": _vivit, "vit_pytorch:LookViT": _look_vit}
    if name not in builders:
        raise ValueError(f"unknown peer {name!r}; peers are {KNOWN}")
    if like is None:
        raise ValueError(f"{name} takes its sizes from a model of the catalogue: name one, such as {_example(name)}")
    return builders[name](name, package, like, num_classes)


def _example(name: str) -> str:
    return "lookupvit_b16_5x5" if name == "vit_pytorch:LookViT" else "vivit_b16x2"


def _import(name: str, library: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:  # installed, but broken: that is another story
            raise
        raise ValueError(
            f"{name} needs the package {PACKAGES[library]}, which is not installed: pip install {PACKAGES[library]}"
        ) from None


def _timm(name: str, timm: ModuleType, model: str, num_classes: int) -> Peer:
    if not timm.is_model(model):
        raise ValueError(f"{name}: timm {timm.__version__} has no model {model!r}")
    built = timm.create_model(model, num_classes=num_classes)
    patches = getattr(getattr(built, "patch_embed", None), "num_patches", None)
    if patches is None:
        raise ValueError(f"{name}: {type(built).__name__} has no patches to count, choose a ViT of timm")
    _, height, width = built.default_cfg["input_size"]
    return Peer(built, (1, height, width), patches, None)


def _vivit(name: str, transformers: ModuleType, like: nn.Module, num_classes: int) -> Peer:
    if not hasattr(like, "embedding"):
        raise ValueError(f"{name} takes its sizes from a model of tubelets: name one, such as {_example(name)}")
    frames, height, width = like.input_size
    blocks = like.blocks[0]
    vit = getattr(blocks, "refine", blocks)  # a LookupViT's block refines by a ViT's
    config = transformers.VivitConfig(
        image_size=[height, width],
        num_frames=frames,
        tubelet_size=list(like.embedding.tubelet),
        hidden_size=like.width,
        num_hidden_layers=len(like.blocks),
        num_attention_heads=vit.attention.heads,
        intermediate_size=vit.mlp[0].out_features,
        num_labels=num_classes,
        attn_implementation="sdpa",
    )
    model = transformers.VivitForVideoClassification(config)
    return _VideoPeer(model, like.input_size, math.prod(like.embedding.grid(like.input_size)), None)


def _look_vit(name: str, package: ModuleType, like: nn.Module, num_classes: int) -> Peer:
    """Token counts of the model it is like; its patches are embedded by one linear map, not by its 7 x 7 convolution.

    It knows square pictures only: a video's lookup tokens become a picture of as many, and its compressed tokens the
    nearest square.
    """
    if not isinstance(like, LookupViT):
        raise ValueError(f"{name} takes its sizes from a LookupViT: name one, such as {_example(name)}")
    tokens = math.prod(like.embedding.grid(like.input_size))
    side, compressed = math.isqrt(tokens), round(math.sqrt(math.prod(like.compressed_size)))
    if side * side != tokens or compressed >= side:
        raise ValueError(
            f"{name} knows square pictures only, which {tokens} lookup tokens "
            f"and {compressed} x {compressed} compressed tokens are not"
        )
    patch, block = like.embedding.tubelet[-1], like.blocks[0]
    heads = block.refine.attention.heads
    sizes: dict[str, Any] = {"heads": heads, "cross_attn_heads": heads}
    sizes |= {key: like.width // heads for key in ("dim_head", "cross_attn_dim_head")}
    model = importlib.import_module(f"{package.__name__}.look_vit").LookViT(
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
        **sizes,
    )
    # It wants patches that divide the picture, but only ever uses them to say how many there are: side // patch.
    model.patch_size = side * patch // compressed
    return Peer(model, (1, side * patch, side * patch), tokens, compressed**2)
