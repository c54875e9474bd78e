"""The preprocessing and the class names of a trained model, from its model.json.

Loading sets ``model.description``, the contents of model.json; a model that was not loaded has none.
"""

from __future__ import annotations

from typing import Any

from data_pipelines.preprocess import Preprocess
from lookupvivit.models.base import Model
from lookupvivit.weights.files import WeightsError

MULTI_LABEL = "multi_label"  # key of model.json: whether a video may have several classes; absent means false


def preprocess_of(model: Model) -> Preprocess:
    """Return the preprocessing that a trained model was validated with.

        preprocess = lookupvivit.preprocess_of(model)
        model(preprocess("holiday.mp4")[None]).logits

    Args:
        model: from `lookupvivit.load_model`.

    Raises:
        WeightsError: the model was not loaded from trained weights, or their model.json has no preprocessing.
        DataError: the preprocessing in model.json is invalid.
    """
    return Preprocess.from_dict(_description(model, "preprocessing"))


def class_names_of(model: Model) -> tuple[str, ...]:
    """Return the names of a trained model's classes, in the order of its logits.

    Args:
        model: from `lookupvivit.load_model`.

    Raises:
        WeightsError: the model was not loaded from trained weights, their model.json has no class names, or the
            classifier was replaced by one of another number of classes.
    """
    names = tuple(_description(model, "class_names"))
    if len(names) != model.num_classes:
        raise WeightsError(
            f"class_names: unknown, because the classifier of {len(names)} classes was replaced by one of "
            f"{model.num_classes}"
        )
    return names


def is_multi_label(model: Model) -> bool:
    """Whether a video may have any number of the model's classes, so that probabilities are sigmoids of the logits.

    A model that was not loaded from trained weights has one class per video.
    """
    return bool(getattr(model, "description", {}).get(MULTI_LABEL, False))


def describe(model: Model) -> dict[str, Any]:
    """Return the model.json of a model as it is now, which rebuilds it.

    Args:
        model: from `lookupvivit.create_model` or `lookupvivit.load_model`. The number of classes is the model's own.
            Class names of other classes, before a `reset_classifier`, are omitted.

    Raises:
        WeightsError: the model was built in another way.
    """
    created_as = getattr(model, "created_as", None)
    if created_as is None:
        raise WeightsError(
            f"model: found a {type(model).__name__} of unknown options, expected one of lookupvivit.create_model or "
            "lookupvivit.load_model"
        )
    name, overrides = created_as
    description = {**getattr(model, "description", {}), "name": name, "num_classes": model.num_classes}
    description["overrides"] = {"input_size": list(model.input_size), **overrides}
    if len(description.get("class_names", ())) != model.num_classes:
        description.pop("class_names", None)
    return description


def _description(model: Model, key: str) -> Any:
    """One entry of the model's model.json."""
    description = getattr(model, "description", None)
    if description is None:
        raise WeightsError(
            f"{key}: unknown, because this {type(model).__name__} was not loaded from trained weights; "
            "lookupvivit.load_model(RUN) returns a model with them"
        )
    if key not in description:
        raise WeightsError(f"{key}: unknown, because the model.json of the weights does not contain it")
    return description[key]
