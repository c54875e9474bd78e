"""A LookupViT that starts as a trained ViT on its compressed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from lookupvivit.models.lookupvit import LookupViT, LookupViTBlock

ZEROS = "zeros that open during training"
OWN_ATTENTION = "the block's own attention"


def upcycle(model: LookupViT, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map a ViT's state to LookupViT's names, such that the model initially is that ViT on the compressed tokens.

    The compressed stream takes each ViT block unchanged. The exchange takes the block's attention projections. Its two
    output projections and that of the lookup MLP start at zero, because full messages between streams that have never
    been trained together would only be noise to the trained blocks. The lookup classifier starts at zero.

    Args:
        model: gives the architecture.
        state: ViT's state dict, of the model's width and depth; entries that are used are removed.

    Returns:
        The state dict, including what remains of ``state``, and the origin of each tensor that the ViT does not have.
    """
    upcycled: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for name in ("embedding.projection.weight", "embedding.projection.bias", "positions"):
        if name in state:
            upcycled[name] = state.pop(name)
    blocks = cast(Sequence[LookupViTBlock], model.blocks)
    for index, block in enumerate(blocks):
        prefix = f"blocks.{index}."
        vit_block = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
        upcycled |= {f"{prefix}refine.{name}": tensor for name, tensor in vit_block.items()}
        for name, (tensor, origin) in _exchange(block, vit_block).items():
            upcycled[prefix + name], origins[prefix + name] = tensor, origin
    upcycled |= _classifiers(model, state)
    return upcycled | state, origins


def _exchange(block: LookupViTBlock, vit: dict[str, Tensor]) -> dict[str, tuple[Tensor, str]]:
    """The tensors of a block's exchange and lookup MLP, each with its origin, from those of a ViT block."""
    if block.exchange == "none":
        return {}
    tensors: dict[str, tuple[Tensor, str]] = {}
    for kind in ("weight", "bias"):
        q, k, v = vit[f"attention.qkv.{kind}"].chunk(3)
        norm, out = vit[f"attention_norm.{kind}"], vit[f"attention.out.{kind}"]
        for projection, tensor in zip("qkv", (q, k, v), strict=True):
            tensors[f"gather.{projection}.{kind}"] = tensor, OWN_ATTENTION
        for stream in ("compressed", "lookup"):
            tensors[f"gather_norm_{stream}.{kind}"] = norm, OWN_ATTENTION
        tensors[f"gather.out.{kind}"] = torch.zeros_like(out), ZEROS
        if block.exchange == "both":
            tensors[f"infuse.v.{kind}"] = v, OWN_ATTENTION
            tensors[f"infuse_norm.{kind}"] = norm, OWN_ATTENTION
            tensors[f"infuse.out.{kind}"] = torch.zeros_like(out), ZEROS
            tensors[f"lookup_mlp.2.{kind}"] = torch.zeros_like(getattr(block.lookup_mlp[2], kind)), ZEROS
    return tensors


def _classifiers(model: LookupViT, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both streams take the final norm; the compressed classifier, or else the only one, takes the ViT's."""
    tensors = {}
    for kind in ("weight", "bias"):
        norm, head = state.pop(f"norm.{kind}"), state.pop(f"head.{kind}", None)
        for stream in ("compressed", "lookup"):
            if hasattr(model, f"{stream}_norm"):
                tensors[f"{stream}_norm.{kind}"] = norm
        if head is not None:
            stream = "compressed" if hasattr(model, "compressed_head") else "lookup"
            tensors[f"{stream}_head.{kind}"] = head
    return tensors
