"""Score a trained captioner on a captioned dataset: CIDEr-D and BLEU, all captions, and a figure of a few of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.datasets.captions import (
    KARPATHY_FILE,
    LIST_SUFFIXES,
    CaptionManifest,
    read_caption_list,
    read_karpathy,
)
from data_pipelines.datasets.clips import MultiViewDataset
from data_pipelines.datasets.manifest import exclude_missing
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import sorted_entries
from data_pipelines.loader import eval_loader
from lookupvivit.captioning.figures import caption_grid, middle_frames
from lookupvivit.captioning.generation import CaptionGenerator, caption_dataset
from lookupvivit.captioning.metrics import caption_scores
from lookupvivit.captioning.task import karpathy_file

NUM_SHOWN = 24  # images in the figure


@dataclass(frozen=True)
class CaptionEvaluation:
    """The captions of a dataset and their scores.

    Attributes:
        dataset: the clips that were captioned, one view per image.
        manifest: the images on disk and their reference captions.
        captions: by index of the image.
        failed: by index, the reason why an image could not be read; such images are not scored.
        scores: of `caption_scores`.
    """

    dataset: MultiViewDataset
    manifest: CaptionManifest
    captions: dict[int, str]
    failed: dict[int, str]
    scores: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Scores, and every caption with its references."""
        images = self.manifest.images
        return {
            "set": str(images.source),
            "images": len(self.captions),
            "missing_images": images.num_missing,
            "broken_images": {images.paths[index]: reason for index, reason in self.failed.items()},
            "scores": self.scores,
            "captions": [
                {
                    "image": images.paths[index],
                    "caption": self.captions[index],
                    "references": self.manifest.captions_of(index),
                }
                for index in sorted(self.captions)
            ],
        }

    def figure(self, title: str) -> np.ndarray:
        """Images with their caption and first reference, uint8 (H, W, 3); at most `NUM_SHOWN`, evenly spread."""
        indices = sorted(self.captions)
        positions = np.linspace(0, len(indices) - 1, min(NUM_SHOWN, len(indices))).astype(int)
        shown = [indices[position] for position in positions]
        clips = torch.stack([self.dataset[index]["video"][0] for index in shown])
        texts = [f"{self.captions[index]}\n({self.manifest.captions_of(index)[0]})" for index in shown]
        return caption_grid(middle_frames(clips), texts, title)


def evaluate_captions(
    generator: CaptionGenerator, manifest: CaptionManifest, batch_size: int, workers: int
) -> CaptionEvaluation:
    """Caption and score all images of a dataset that are on disk.

    Args:
        generator: of `CaptionGenerator.load`.
        manifest: listed images, whether or not their files exist.
        batch_size: images per forward pass.
        workers: processes that read images; 0 reads them in this one.

    Raises:
        DataError: fewer than two images can be read.
    """
    images = exclude_missing(manifest.images)
    manifest = manifest.with_images(images)
    missing = f", {images.num_missing} listed images are MISSING and excluded" if images.num_missing else ""
    print(f"{len(manifest)} images from {images.source}{missing}")
    dataset = MultiViewDataset(images, generator.preprocess, 1, 1)
    loader = eval_loader(dataset, 0, 1, batch_size, workers)
    captions, failed = caption_dataset(generator, loader, len(images), "caption")
    for reason in failed.values():
        print(f"FAILED, excluded from the scores: {reason}")
    try:
        scores = caption_scores(captions, {index: manifest.captions_of(index) for index in captions})
    except ValueError as error:
        raise DataError(f"{images.source}: {error}") from None
    return CaptionEvaluation(dataset, manifest, captions, failed, scores)


def read_captioned_dataset(
    source: Path, split: str | None = None, root: Path | None = None
) -> tuple[CaptionManifest, str]:
    """Read a captioned dataset to score.

    Args:
        source: COCO's folder, a file in Karpathy's format, or a list (see `data_pipelines.datasets.captions`).
        split: of a file in Karpathy's format; "test" by default.
        root: folder that image paths start from; by default the folder that was given or holds the file.

    Returns:
        The manifest, and a name for the results: the split, or the stem of the list's file name.

    Raises:
        MissingDataError: no such file.
        DataError: another format.
    """
    if not source.exists():
        raise MissingDataError(f"{source}: not found, expected a folder with {KARPATHY_FILE} or a list of captions")
    file = _karpathy_file(source) if source.is_dir() else source
    root = root or (source if source.is_dir() else file.parent)
    if file.name == KARPATHY_FILE or split:
        split = split or "test"
        return read_karpathy(file, split, root), split
    return read_caption_list(file, root), file.stem


def _karpathy_file(folder: Path) -> Path:
    """As `karpathy_file`; the error names lists of captions that were perhaps meant."""
    try:
        return karpathy_file(folder)
    except MissingDataError as error:
        lists = [entry.name for entry in sorted_entries(folder) if entry.name.endswith(LIST_SUFFIXES)]
        hint = f"; to score your own dataset, give its list: {', '.join(lists[:3])}" if lists else ""
        raise MissingDataError(f"{error}{hint}") from None
