"""A trained model with what is needed to apply it to clips: preprocessing, class names, device and compressed size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.layers.patch_embed import EmbeddedVideo
from lookupvivit.models.base import Model
from lookupvivit.models.token_settings import check_token_setting
from lookupvivit.sizes import Keep, Size, TokenSetting
from lookupvivit.weights.files import WeightsError
from lookupvivit.weights.metadata import class_names_of, is_multi_label, preprocess_of


class ClipClassifier:
    """Maps clips to logits.

    Args:
        model: of `lookupvivit.load_model`, which knows its preprocessing. Classes without names are numbered.
        compressed_size: (t, h, w); default: the model's own.
        device: where the model computes.
        keep: share of the lookup tokens to keep, such as 0.5 or "motion:0.5"; default: all.

    Raises:
        WeightsError: the preprocessing is unknown, or the model does not support the compressed size or ``keep``.
    """

    def __init__(
        self,
        model: Model,
        compressed_size: Size | None = None,
        device: torch.device | str = "cpu",
        keep: float | str | Keep | None = None,
    ) -> None:
        self.preprocess = preprocess_of(model)
        try:
            self.class_names = class_names_of(model)
        except WeightsError:
            num_classes: Any = model.num_classes
            self.class_names = tuple(map(str, range(num_classes)))
        self.is_multi_label = is_multi_label(model)
        self.model, self.device = model.eval().to(device), torch.device(device)
        try:
            self.tokens = TokenSetting.of(compressed_size, keep)
            check_token_setting(model, self.tokens)
        except ValueError as error:
            raise WeightsError(str(error)) from None

    @torch.inference_mode()
    def logits(self, clips: Tensor | EmbeddedVideo) -> Tensor:
        """uint8 (B, 3, T, crop, crop), or such clips embedded, -> float32 (B, K) on the CPU.

        Raises:
            WeightsError: the model does not accept clips of this shape.
        """
        try:
            video = to_model_input(clips, self.device) if isinstance(clips, Tensor) else clips
            return self.model(video, **self.tokens.call).logits.float().cpu()
        except ValueError as error:
            raise WeightsError(f"the model does not accept its input: {error}") from None

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """Softmax of logits (..., K); the sigmoid of each, if a video may have several classes."""
        return (logits.sigmoid() if self.is_multi_label else logits.softmax(-1)).numpy()


def require_finite(logits: Tensor) -> None:
    """Raise a WeightsError if logits are NaN or infinite."""
    if not logits.isfinite().all():
        raise WeightsError("logits: found NaN or infinite values; the weights are corrupt, or training diverged")
