"""Logits and features of every image of a dataset.

The pipeline treats an image as a video of one frame. Images go through the model's own preprocessing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data_pipelines.datasets.clips import MultiViewDataset
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.io.progress import progress
from data_pipelines.loader import eval_loader
from data_pipelines.preprocess import Preprocess
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.models.base import Model
from lookupvivit.weights.files import WeightsError
from lookupvivit.weights.metadata import preprocess_of


class ImageOutputs(NamedTuple):
    """Outputs for N images, in the order of their manifest.

    Attributes:
        logits: float32 (N, K).
        features: float32 (N, D), the inputs of the classifiers; see `classifier_inputs`.
    """

    logits: np.ndarray
    features: np.ndarray


@torch.no_grad()
def image_outputs(
    model: Model,
    manifest: VideoManifest,
    batch_size: int,
    device: torch.device,
    workers: int,
    description: str,
    cropped: bool = False,
) -> ImageOutputs:
    """Compute the logits and features of every image.

    Args:
        model: of `lookupvivit.load_model`, on ``device``.
        manifest: the images.
        batch_size: the number of images in one forward pass.
        device: of the model.
        workers: the number of processes that read images; 0: this process reads them.
        description: text in front of the progress bar.
        cropped: the images were resized and cropped when the dataset was created, as those of ImageNet-C. Their shorter
            side is then resized to the model's crop, and no border is cut off.

    Raises:
        DataError: an image cannot be read, because scores of the others would not be those of the dataset; or
            model.json has no preprocessing.
    """
    preprocess = _preprocess(model)
    if cropped:
        preprocess = replace(preprocess, short_side=preprocess.crop)
    dataset = MultiViewDataset(manifest, preprocess, 1, 1)
    logits, features = [], []
    with progress(total=len(manifest), unit="image", desc=description) as bar, classifier_inputs(model) as inputs:
        for batch in eval_loader(dataset, 0, 1, batch_size, workers):
            reasons = [reason for reason in batch["failed"] if reason]
            if reasons:
                raise DataError(f"{reasons[0]}; the scores need every image, replace this one")
            images = batch["video"][:, 0]  # the only view: (b, 3, T, crop, crop)
            logits.append(model(to_model_input(images, device)).logits.float().cpu())
            features.append(torch.cat([part.float() for part in inputs], dim=1).cpu())
            inputs.clear()
            bar.update(len(images))
    return ImageOutputs(torch.cat(logits).numpy(), torch.cat(features).numpy())


def _preprocess(model: Model) -> Preprocess:
    try:
        return preprocess_of(model)
    except WeightsError as error:
        raise DataError(str(error)) from None


@contextmanager
def classifier_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list to which every forward pass within the block appends the inputs of the classifiers, (B, D) each.

    These are the pooled and normalised features before the logits ("pre-logits"). LookupViT has two classifiers, one
    for the compressed and one for the lookup tokens. The paper does not say which features its Fig. 4 and Table 9 use.
    All are used here, as inference averages all classifiers.
    """
    inputs: list[Tensor] = []
    classifiers = classifiers_of(model).values()
    hooks = [module.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for module in classifiers]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def classifiers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The classifiers of a model by name, ``head`` or ``..._head``, in the order in which a forward pass calls them."""
    return {name: module for name, module in model.named_children() if name == "head" or name.endswith("_head")}


def image_names(manifest: VideoManifest) -> np.ndarray:
    """ "<class>/<file>" of every image, str (N,), independent of the location of the dataset."""
    return np.array([os.path.relpath(path, manifest.source).replace(os.sep, "/") for path in manifest.paths])
