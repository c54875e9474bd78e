"""Save and load models on the Hugging Face Hub, as `model.safetensors`, `model.json` and a model card.

    model = HubModel.load("runs/camera_motion")              # any run or checkpoint directory
    model.push_to_hub("OWNER/lookupvivit-camera-motion")
    model = HubModel.from_pretrained("OWNER/lookupvivit-camera-motion")

`lookupvivit.load_model` reads the same folder without huggingface_hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download
from torch import nn

from lookupvivit.models.outputs import ModelOutput
from lookupvivit.models.registry import create_model
from lookupvivit.weights.files import DESCRIPTION, WEIGHTS, load_classifier, read_description, save_model

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
clip = lookupvivit.preprocess_of(model)("video.mp4")  # (3, T, H, W) in [-1, 1], the central clip
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
    tags=["lookupvit", "video-classification"],
    model_card_template=CARD,
):
    """A model of the registry with the Hub's ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    Args:
        description: content of ``model.json``: ``name``, ``num_classes``, ``overrides``, and optional further keys.

    Attributes:
        model: the wrapped model.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__()
        self.description = description
        self.model = create_model(description["name"], description["num_classes"], **description["overrides"])
        # model.json suffices to build the model. The Hub counts downloads of config.json; the mixin needs it offline.
        self._hub_mixin_config = {"architecture": description["name"]}

    @classmethod
    def load(cls, path: str | Path) -> HubModel:
        """Load a trained model from a run or checkpoint directory, in eval mode."""
        model = load_classifier(path)
        found = cls(read_description(path))
        found.model = model
        return found.eval()

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.model.num_classes

    def forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        """Call the wrapped model."""
        return self.model(*args, **kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self.model.state_dict(), self.description)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
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
        return cls.load(model_id)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """Fill the template of the model card from the description."""
        fields = {"name": self.description["name"], "num_classes": self.description["num_classes"]}
        fields["description"] = json.dumps(self.description, indent=2, ensure_ascii=False)
        return super().generate_model_card(*args, **fields, **kwargs)
