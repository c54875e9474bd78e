"""The preprocessing and the class names of a trained model, from its model.json.

Loading sets ``model.description``, the contents of model.json; a model that was not loaded has none.
"""

from __future__ import annotations

from typing import Any

from data_pipelines.preprocess import Preprocess
from lookupvivit.models.base import Model
from lookupvivit.weights.files import WeightsError


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
