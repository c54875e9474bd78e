"""Checks that a call of a model accepts a `lookupvivit.sizes.TokenSetting`."""

from __future__ import annotations

from torch import nn

from lookupvivit.layers.compressed_init import require_size_within
from lookupvivit.models.base import check_keep
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.sizes import Size, TokenSetting, format_size


def check_token_setting(model: nn.Module, tokens: TokenSetting, input_size: Size | None = None) -> None:
    """Check that a model accepts a compressed size and a share of kept tokens.

    Args:
        input_size: (T, H, W) of the input; default: the model's own.

    Raises:
        ValueError: as `check_compressed_size` and `check_keep`.
    """
    if tokens.compressed_size is not None:
        check_compressed_size(model, tokens.compressed_size, input_size=input_size)
    check_keep(model, tokens.keep)


def check_compressed_size(
    model: nn.Module, size: Size, key: str = "compressed_size", input_size: Size | None = None
) -> None:
    """Check that a model accepts the compressed size ``size`` (t, h, w).

    Args:
        key: name of the size in error messages.
        input_size: (T, H, W) of the input; default: the model's own.

    Raises:
        ValueError: the compressed size cannot be chosen, or exceeds the lookup grid.
    """
    if not (isinstance(model, LookupViT) and model.compress.any_size):
        raise ValueError(
            f"{key}: found {format_size(size)} (TxHxW), expected no size: this {type(model).__name__} has a fixed "
            "compressed size, or no compressed tokens"
        )
    require_size_within(size, model.lookup_grid(input_size or model.input_size), key)
