"""Checks that a call of a model accepts a `lookupvivit.sizes.TokenSetting`."""

from __future__ import annotations

from torch import nn

from lookupvivit.models.base import check_keep
from lookupvivit.models.lookupvit import check_compressed_size
from lookupvivit.sizes import Size, TokenSetting


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
