"""The configuration of a model, and what every folder for transformers contains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedConfig

from data_pipelines.io.atomic import write_json, write_text
from lookupvivit.weights.files import DESCRIPTION
from lookupvivit.weights.metadata import MULTI_LABEL

PROBLEM_TYPE: Final = "multi_label_classification"  # of models for several classes per video
REMOTE_CODE = "modeling_lookupvivit"  # the module that transformers imports with ``trust_remote_code=True``


class AutoClassMixin:
    """For classes that folders name in ``auto_map``."""

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Do nothing: transformers would write the file of the class into folders, where it cannot be imported."""


class LookupViTConfig(AutoClassMixin, PreTrainedConfig):
    """What model.json contains, for transformers; class names are ``id2label``.

    Args:
        architecture: one of `lookupvivit.list_models()`.
        overrides: arguments of `lookupvivit.create_model`.
        preprocessing: of the input, see `data_pipelines.preprocess.Preprocess`.
    """

    model_type = "lookupvivit"

    architecture: str = "lookupvivit_b16x2_9x9x8"
    overrides: dict[str, Any] | None = None
    preprocessing: dict[str, Any] | None = None

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> LookupViTConfig:
        """Build from the content of a model.json. This is the inverse of `description`."""
        num_classes = description["num_classes"]
        names = description.get("class_names", _nameless(num_classes))
        return cls(
            architecture=description["name"],
            overrides=description["overrides"],
            preprocessing=description.get("preprocessing"),
            problem_type=PROBLEM_TYPE if description.get(MULTI_LABEL) else None,
            id2label=dict(enumerate(names)),
            label2id={name: label for label, name in enumerate(names)},
        )

    @property
    def description(self) -> dict[str, Any]:
        """The content of model.json."""
        labels: dict[Any, str] = self.id2label or {}
        names = [labels[label] for label in range(len(labels))]
        description: dict[str, Any] = {"name": self.architecture, "num_classes": len(names)}
        description["overrides"] = self.overrides or {}
        if names != _nameless(len(names)):
            description["class_names"] = names
        if self.problem_type == PROBLEM_TYPE:
            description[MULTI_LABEL] = True
        if self.preprocessing is not None:
            description["preprocessing"] = self.preprocessing
        return description

    @property
    def num_frames(self) -> int | None:
        """The number of frames of a clip; transformers' pipeline passes it to the processor."""
        return self.preprocessing["frames"] if self.preprocessing else None

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config.json, model.json, and the module that ``trust_remote_code=True`` imports."""
        self.auto_map = {
            "AutoConfig": f"{REMOTE_CODE}.LookupViTConfig",
            "AutoModelForImageClassification": f"{REMOTE_CODE}.LookupViTForImageClassification",
            "AutoModelForVideoClassification": f"{REMOTE_CODE}.LookupViTForVideoClassification",
        }
        write_json(Path(save_directory) / DESCRIPTION, self.description)
        # The module needs an installation of this library. A copy of the library would become outdated.
        write_text(Path(save_directory) / f"{REMOTE_CODE}.py", "from lookupvivit.transformers import *\n")
        super().save_pretrained(save_directory, *args, **kwargs)


def _nameless(num_classes: int) -> list[str]:
    """The names that transformers gives to classes without names."""
    return [f"LABEL_{label}" for label in range(num_classes)]
