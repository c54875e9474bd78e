"""Features of clips: what the classifiers read, and the tokens of chosen blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.evaluation.image_outputs import classifier_inputs, classifiers_of
from lookupvivit.models.base import Model
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.token_settings import check_compressed_size
from lookupvivit.sizes import Size, as_size
from lookupvivit.weights.files import WeightsError

GRIDS = ("compressed", "lookup", "tokens", "latents")  # tokens among a model's intermediates


class FeatureExtractor:
    """Computes features of clips.

    Args:
        model: any model of the registry.
        blocks: numbers of the blocks whose tokens are also returned; the last one is -1. A Perceiver has stages
            instead.
        compressed_size: (t, h, w); default: the model's own.
        half: round tokens to float16.
        device: where the model computes.

    Attributes:
        blocks: numbers from 0, ascending.

    Raises:
        WeightsError: the model has no such block, or does not support the compressed size.
    """

    def __init__(
        self,
        model: Model,
        blocks: Sequence[int] = (),
        compressed_size: Size | None = None,
        half: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.device = model.eval().to(device), torch.device(device)
        self.token_dtype = torch.float16 if half else torch.float32
        self.streams = [name.removesuffix("head") + "features" for name in classifiers_of(model)]
        depth = depth_of(model)
        if outside := [block for block in blocks if not -depth <= block < depth]:
            raise WeightsError(f"blocks: found {outside[0]}, expected 0 to {depth - 1}")
        self.blocks = sorted({block % depth for block in blocks})
        self.compressed_size = None if compressed_size is None else as_size(compressed_size)
        if self.compressed_size is not None:
            try:
                check_compressed_size(model, self.compressed_size)
            except ValueError as error:
                raise WeightsError(str(error)) from None

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> dict[str, np.ndarray]:
        """Compute the features of clips, uint8 (B, 3, T, H, W).

        Returns:
            Arrays with B rows. ``compressed_features`` and ``lookup_features`` (B, D) of a LookupViT, or ``features``
            of another model, are the inputs of its classifiers: pooled tokens after the final norm. The outputs of
            block 3 are ``block3_compressed`` (B, tp, hp, wp, D) and ``block3_lookup`` (B, t, h, w, D), or
            ``block3_tokens`` or ``block3_latents`` of another model. A model of windows has those of the last window.

        Raises:
            WeightsError: a value is NaN, infinite, or too large for float16; or the clips do not fit the model.
        """
        video = to_model_input(clips, self.device)
        try:
            with classifier_inputs(self.model) as pooled:
                tokens = self._tokens(video)
        except ValueError as error:
            raise WeightsError(f"the model does not accept its input: {error}") from None
        features = {name: values.float() for name, values in zip(self.streams, pooled, strict=True)}
        features |= {name: values.to(self.token_dtype) for name, values in tokens.items()}
        for name, values in features.items():
            if not values.isfinite().all():
                raise WeightsError(f"{name}: found NaN or infinite values, expected finite ones of {values.dtype}")
        return {name: values.cpu().numpy() for name, values in features.items()}

    def _tokens(self, video: Tensor) -> dict[str, Tensor]:
        """Run the model; the tokens of the chosen blocks by name."""
        arguments: dict[str, Any] = {} if self.compressed_size is None else {"compressed_size": self.compressed_size}
        if not self.blocks:
            self.model(video, **arguments)
            return {}
        if isinstance(self.model, LookupViT):  # its intermediates would materialise the attention of every block
            with _block_outputs(self.model, self.blocks) as outputs:
                self.model(video, **arguments)
            compressed_grid = self.compressed_size or self.model.compressed_size
            lookup_grid = self.model.lookup_grid(as_size(video.shape[2:]))
            named = {
                block: {
                    "compressed": compressed.unflatten(1, compressed_grid),
                    "lookup": lookup.unflatten(1, lookup_grid),
                }
                for block, (compressed, lookup) in outputs.items()
            }
        else:
            named = dict(enumerate(self.model(video, return_intermediates=True).intermediates))
        return {
            f"block{block}_{name}": tensor
            for block in self.blocks
            for name, tensor in named[block].items()
            if name in GRIDS
        }


def depth_of(model: Model) -> int:
    """The number of blocks, or of stages of a Perceiver, whose blocks are repeated."""
    return getattr(model, "stages", len(model.blocks))


@contextmanager
def _block_outputs(model: Model, blocks: Sequence[int]) -> Iterator[dict[int, Any]]:
    """Yield a dict to which a forward pass within the block adds the outputs of these blocks."""
    outputs: dict[int, Any] = {}
    with ExitStack() as hooks:
        for block in blocks:
            hook = model.blocks[block].register_forward_hook(
                lambda _, __, output, block=block: outputs.__setitem__(block, output)
            )
            hooks.callback(hook.remove)
        yield outputs
