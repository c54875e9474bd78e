"""Save and load models on the Hugging Face Hub, as `model.safetensors`, `model.json` and a model card.

    model = HubModel.load("runs/camera_motion")              # any run or checkpoint directory
    model.push_to_hub("OWNER/lookupvivit-camera-motion")
    model = HubModel.from_pretrained("OWNER/lookupvivit-camera-motion", dtype=torch.bfloat16)
    model = HubModel.from_pretrained("OWNER/lookupvivit-camera-motion", num_classes=5)  # with new classifiers

`lookupvivit.load_model` reads the same folder without huggingface_hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download
from torch import nn

from data_pipelines.io.atomic import atomic_files
from lookupvivit.models.base import Model
from lookupvivit.models.outputs import ModelOutput
from lookupvivit.models.shapes_only import shapes_only
from lookupvivit.weights.export import input_shape
from lookupvivit.weights.files import (
    DESCRIPTION,
    WEIGHTS,
    described_model,
    load_classifier,
    require_same_shapes,
    save_model,
)
from lookupvivit.weights.metadata import describe

CARD = """---
# The Hub's documentation lists further fields, such as dataset, metrics and licence.
{{ card_data }}
---

# {{ name }}

LookupViT (Koner et al., ECCV 2024, https://arxiv.org/abs/2407.12753) with {{ num_classes }} classes.

```python
import lookupvivit
from lookupvivit.weights.hub import HubModel

model = HubModel.from_pretrained("OWNER/NAME").eval()
clip = lookupvivit.preprocess_of(model)("{{ example }}")  # (3, T, H, W) in [-1, 1]
logits = model(clip[None]).logits  # (1, K)
lookupvivit.class_names_of(model)[logits.argmax()]
```

`model.json` describes the architecture, the classes and the preprocessing:

```json
{{ description }}
```
"""


class HubModel(
    nn.Module,
    ModelHubMixin,
    library_name="lookupvivit",
    paper_url="https://arxiv.org/abs/2407.12753",
    model_card_template=CARD,
):
    """A model of the registry with the Hub's ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    Args:
        model: from `lookupvivit.create_model` or `lookupvivit.load_model`, or the content of a ``model.json``, from
            which a model with random weights is built.

    Attributes:
        model: the wrapped model.
    """

    def __init__(self, model: Model | dict[str, Any]) -> None:
        super().__init__()
        if isinstance(model, dict):
            description, model = model, described_model(model)
            model.description = description
        self.model = model
        # model.json suffices to build the model. The Hub counts downloads of config.json; the mixin needs it offline.
        self._hub_mixin_config = {"architecture": self.description["name"]}

    @classmethod
    def load(cls, path: str | Path) -> HubModel:
        """Load a trained model from a run or checkpoint directory, in eval mode."""
        return cls(load_classifier(path)).eval()

    @property
    def description(self) -> dict[str, Any]:
        """Content of the ``model.json`` of the model as it is now."""
        return describe(self.model)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.model.num_classes

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        """Call the wrapped model."""
        return self.model(*args, **kwargs)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifiers with newly initialised ones for ``num_classes`` classes."""
        self.model.reset_classifier(num_classes)

    def _save_pretrained(self, save_directory: Path) -> None:
        state, description = self.model.state_dict(), self.description
        with shapes_only():  # before anything is written that could not be loaded
            rebuilt = described_model(description)
        require_same_shapes(rebuilt, {name: tensor.shape for name, tensor in state.items()}, save_directory / WEIGHTS)
        with atomic_files(save_directory, last=DESCRIPTION) as folder:  # never a description with other weights
            save_model(folder, state, description)

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # unknown arguments fail
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        num_classes: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> HubModel:
        if not Path(model_id).is_dir():
            model_id = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[WEIGHTS, DESCRIPTION],
            )
        model = cls.load(model_id)
        if num_classes not in (None, model.num_classes):
            model.reset_classifier(num_classes)
        return model.to(dtype)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Fill the template of the model card from the description."""
        description, kind = self.description, "image" if len(input_shape(self.model)) == 4 else "video"
        card_data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        card_data.pipeline_tag = f"{kind}-classification"
        card_data.tags = ["lookupvit", card_data.pipeline_tag, *(card_data.tags or ())]
        fields = {"name": description["name"], "num_classes": description["num_classes"]}
        fields["example"] = {"image": "image.jpg", "video": "video.mp4"}[kind]
        fields["description"] = json.dumps(description, indent=2, ensure_ascii=False)
        return ModelCard.from_template(card_data, template_str=CARD, **fields, **kwargs)
