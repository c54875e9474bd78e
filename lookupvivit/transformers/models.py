"""The models of the registry in transformers' interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import can_return_tuple

from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.layers.token_selection import KeepLike
from lookupvivit.models.base import Model
from lookupvivit.sizes import Size
from lookupvivit.transformers.configuration import AutoClassMixin, LookupViTConfig
from lookupvivit.weights.export import input_shape
from lookupvivit.weights.files import described_model
from lookupvivit.weights.metadata import describe

PREFIX = "model."  # of parameter names, which the files do not have

# Bytes. torch aligns what it allocates; transformers maps files, whose tensors may start anywhere. On a CPU, matrix
# products of other alignments round differently.
ALIGNMENT = 64


class _Classifier(AutoClassMixin, PreTrainedModel):
    """A model of the registry in transformers' interface.

    Attributes:
        model: the wrapped model.
    """

    config_class = LookupViTConfig
    base_model_prefix = PREFIX[:-1]
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    takes_images: bool

    def __init__(self, config: LookupViTConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = described_model(config.description)
        self.model.description = config.description
        if is_image_model(self.model) != self.takes_images:
            kind = "video" if self.takes_images else "image"
            raise ValueError(
                f"architecture: found {config.architecture!r}, a model for {kind}s, which "
                f"AutoModelFor{kind.title()}Classification loads"
            )
        for parameter in self.model.parameters():
            if not parameter.is_meta:  # `from_pretrained` builds on the meta device
                parameter._is_hf_initialized = True
        self.post_init()

    @classmethod
    def from_lookupvivit(cls, model: Model) -> Any:
        """Return a copy of a model of `lookupvivit.create_model` or `lookupvivit.load_model`, in eval mode."""
        classifier = cls(LookupViTConfig.from_description(describe(model)))
        classifier.model.load_state_dict(model.state_dict())
        return classifier.eval()

    def _classify(
        self, video: Tensor, labels: Tensor | None, compressed_size: Size | None, keep: KeepLike
    ) -> ImageClassifierOutput:
        """Return the logits and, with labels, the sum of the losses of the classifiers, with which runs are trained."""
        call: dict[str, Any] = {} if compressed_size is None else {"compressed_size": compressed_size}
        call |= {} if keep is None else {"keep": keep}
        output, loss = self.model(video, **call), None
        if labels is not None:
            losses = [
                self.loss_function(labels=labels, pooled_logits=output[name], config=self.config)
                for name in self.model.supervised
            ]
            loss = torch.stack(losses).sum()
        return ImageClassifierOutput(loss=loss, logits=output.logits)

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Initialise the parameters that a file lacks, such as classifiers of other classes, and align the others."""
        missing = [
            (name, parameter)
            for name, parameter in self.model.named_parameters()
            if not getattr(parameter, "_is_hf_initialized", False)
        ]
        if missing:
            initial = described_model(self.config.description).state_dict()
            for name, parameter in missing:
                parameter.copy_(initial[name])
        for parameter in self.model.parameters():
            if parameter.data_ptr() % ALIGNMENT:
                parameter.data = parameter.data.clone()

    def save_pretrained(  # type: ignore[override]  # the other arguments by name
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the folder; the tensors have the names of the wrapped model."""
        state = self.state_dict() if state_dict is None else state_dict
        state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
        super().save_pretrained(save_directory, is_main_process, state, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Load tensors with the names of this model or of the wrapped one; `Trainer` resumes from the latter."""
        state = {PREFIX + name.removeprefix(PREFIX): tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(state, *args, **kwargs)

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        set_activation_checkpointing(self.model, enable)


class LookupViTForVideoClassification(_Classifier):
    """A video model in transformers' interface."""

    takes_images = False
    input_modalities = "video"

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        compressed_size: Size | None = None,
        keep: KeepLike = None,
    ) -> ImageClassifierOutput:
        """Classify videos.

        Args:
            pixel_values: (B, T, 3, H, W) in [-1, 1], in transformers' order of the axes.
            labels: (B,), or (B, K) with ``problem_type="multi_label_classification"``.
            compressed_size: (t, h, w) compressed tokens of a LookupViT, by default its own.
            keep: share or indices of the lookup tokens to keep, as in LookupViT; all by default.
        """
        if pixel_values.dim() != 5 or pixel_values.shape[2] != 3:
            raise ValueError(f"pixel_values: found shape {tuple(pixel_values.shape)}, expected (B, T, 3, H, W)")
        video = pixel_values.transpose(1, 2).contiguous()  # as from our loaders, so that logits are bit-identical
        return self._classify(video, labels, compressed_size, keep)


class LookupViTForImageClassification(_Classifier):
    """An image model in transformers' interface."""

    takes_images = True
    input_modalities = "image"

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        compressed_size: Size | None = None,
        keep: KeepLike = None,
    ) -> ImageClassifierOutput:
        """Classify images (B, 3, H, W) in [-1, 1]; the other arguments are those of the video model."""
        if pixel_values.dim() != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"pixel_values: found shape {tuple(pixel_values.shape)}, expected (B, 3, H, W)")
        return self._classify(pixel_values, labels, compressed_size, keep)


def is_image_model(model: Model) -> bool:
    """Whether the model takes images (B, 3, H, W) instead of videos."""
    return len(input_shape(model)) == 4
