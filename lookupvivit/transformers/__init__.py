"""Classifiers as Hugging Face transformers models; ``import lookupvivit.transformers`` registers them.

    convert_run("runs/camera_motion", "camera_motion_hf")
    classify = transformers.pipeline("video-classification", "camera_motion_hf")
    classify("holiday.mp4")  # [{"score": ..., "label": ...}, ...]

A folder that ``save_pretrained`` writes has the model.safetensors and model.json of a run directory, so that the rest
of this library reads it as well. transformers loads it after this import, or with ``trust_remote_code=True`` where this
library is installed.
"""

from __future__ import annotations

from pathlib import Path

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
)

from data_pipelines.io.real_paths import require_not_among
from lookupvivit.transformers.configuration import LookupViTConfig
from lookupvivit.transformers.models import (
    LookupViTForImageClassification,
    LookupViTForVideoClassification,
    is_image_model,
)
from lookupvivit.transformers.processors import LookupViTImageProcessor, LookupViTVideoProcessor
from lookupvivit.weights.files import DESCRIPTION, load_classifier, weights_file
from lookupvivit.weights.metadata import preprocess_of

__all__ = [
    "LookupViTConfig",
    "LookupViTForImageClassification",
    "LookupViTForVideoClassification",
    "LookupViTImageProcessor",
    "LookupViTVideoProcessor",
    "convert_run",
]


def convert_run(run: str | Path, folder: str | Path) -> None:
    """Write a trained classifier and its processor in the format of transformers.

    Args:
        run: a run directory, checkpoint directory or ``model.safetensors``.
        folder: for ``from_pretrained``; created if necessary.

    Raises:
        WeightsError: there is no classifier in ``run``, or its model.json has no preprocessing.
        DataError: ``folder`` is that of the run, whose files would be replaced.
    """
    weights = weights_file(run)
    inputs = [weights, weights.with_name(DESCRIPTION)]
    require_not_among([Path(folder) / file.name for file in inputs], inputs)
    model = load_classifier(run)
    settings = preprocess_of(model).to_dict()
    is_image = is_image_model(model)
    classifier = LookupViTForImageClassification if is_image else LookupViTForVideoClassification
    processor = LookupViTImageProcessor if is_image else LookupViTVideoProcessor
    classifier.from_lookupvivit(model).save_pretrained(folder)
    processor(preprocessing=settings).save_pretrained(folder)


AutoConfig.register(LookupViTConfig.model_type, LookupViTConfig)
AutoModelForVideoClassification.register(LookupViTConfig, LookupViTForVideoClassification)
AutoModelForImageClassification.register(LookupViTConfig, LookupViTForImageClassification)
AutoVideoProcessor.register(LookupViTConfig, LookupViTVideoProcessor)
AutoImageProcessor.register(
    LookupViTConfig, image_processor_classes=dict.fromkeys(("torchvision", "pil"), LookupViTImageProcessor)
)
