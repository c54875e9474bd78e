"""Pictures through a trained model, each once: its logits, and the features that its classifiers read.

A picture is a video of one frame to the pipeline, and goes through the model's own preprocessing.
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
from data_pipelines.transforms.normalization import to_model_input


class ImageOutputs(NamedTuple):
    """What a model says of N pictures, in the order of their manifest.

    Attributes:
        logits: float32 (N, K).
        features: float32 (N, D), see `classifier_inputs`.
    """

    logits: np.ndarray
    features: np.ndarray


@torch.no_grad()
def image_outputs(
    model: nn.Module,
    manifest: VideoManifest,
    batch_size: int,
    device: torch.device,
    workers: int,
    description: str,
    cropped: bool = False,
) -> ImageOutputs:
    """Logits and features of every picture.

    Args:
        model: of `lookupvivit.load_model`, on ``device``.
        batch_size: pictures in one forward pass.
        workers: processes that read pictures; 0 reads them in this one.
        description: what stands before the progress bar.
        cropped: the pictures were resized and cropped when their set was made, as ImageNet-C's: their shorter side is
            brought to the model's crop and no border is cut off.

    Raises:
        DataError: a picture that cannot be read, as a score over the others would pass for that of the set; or weights
            that do not tell their preprocessing.
    """
    try:
        how = model.preprocess
    except AttributeError as error:
        raise DataError(str(error)) from None
    how = replace(how, short_side=how.crop) if cropped else how
    dataset = MultiViewDataset(manifest, how, 1, 1)
    logits, features = [], []
    with progress(total=len(manifest), unit="picture", desc=description) as bar, classifier_inputs(model) as seen:
        for batch in eval_loader(dataset, 0, 1, batch_size, workers):
            if broken := [reason for reason in batch["failed"] if reason]:
                raise DataError(f"{broken[0]}; every picture of the set counts, so it must be replaced by a whole one")
            video = batch["video"][:, 0]  # the only view: (b, 3, T, crop, crop)
            logits.append(model(to_model_input(video, device)).logits.float().cpu())
            features.append(torch.cat([part.float() for part in seen], dim=1).cpu())
            seen.clear()
            bar.update(len(video))
    return ImageOutputs(torch.cat(logits).numpy(), torch.cat(features).numpy())


@contextmanager
def classifier_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that every forward pass within the block fills with what the model's classifiers read, (B, D) each.

    This is the pooled, normed feature before the logits ("pre-logits"). LookupViT has one for each head, of the
    compressed and of the lookup tokens; which of them the paper's Fig. 4 and Table 9 are about is not told, and all are
    given, as inference averages all heads.
    """
    seen: list[Tensor] = []
    heads = [module for name, module in model.named_children() if name == "head" or name.endswith("_head")]
    hooks = [head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for head in heads]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def picture_names(manifest: VideoManifest) -> np.ndarray:
    """ "<class>/<file>" of every picture, str (N,): the same wherever the set lies."""
    return np.array([os.path.relpath(path, manifest.source).replace(os.sep, "/") for path in manifest.paths])
