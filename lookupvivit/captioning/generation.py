"""Captions from a trained captioner: of a batch of clips, or of every image of a set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_pipelines.io.progress import progress
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.captioning.model import Captioner
from lookupvivit.captioning.search import beam_search, greedy_search
from lookupvivit.captioning.tokenizer import CaptionTokenizer
from lookupvivit.models.base import Size
from lookupvivit.models.lookupvit import check_compressed_size
from lookupvivit.weights.files import WeightsError, load_model

if TYPE_CHECKING:
    from data_pipelines.preprocess import Preprocess


class CaptionWriter:
    """A captioner and its words.

    Args:
        model: on the device that it computes on, in eval mode.
        tokenizer: which it was trained with.
        beams: of `beam_search`; 1 is greedy.
        length_penalty: of the scores of `lookupvivit.captioning.search`.
        call: further arguments of `Captioner.memory`.

    Attributes:
        preprocess: how pictures are made ready; of one that was loaded.
    """

    preprocess: Preprocess

    def __init__(
        self,
        model: Captioner,
        tokenizer: CaptionTokenizer,
        beams: int = 1,
        length_penalty: float = 1.0,
        call: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.beams, self.length_penalty = model, tokenizer, beams, length_penalty
        self.call = call or {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        beams: int = 1,
        length_penalty: float = 1.0,
        compressed_size: Size | None = None,
    ) -> CaptionWriter:
        """A trained captioner from a run directory or its model.safetensors, with the class's options.

        Args:
            compressed_size: (t, h, w) compressed tokens, the encoder's own by default.

        Raises:
            WeightsError: it is none, its tokenizer or preprocessing are missing or damaged, or its encoder cannot
                compute with that compressed size.
        """
        model = load_model(path)
        if not isinstance(model, Captioner):
            raise WeightsError(f"{path}: a {type(model).__name__}, which has classes and writes no captions")
        if compressed_size is not None:
            try:
                check_compressed_size(model.encoder, compressed_size, f"{path}: compressed_size")
            except ValueError as error:
                raise WeightsError(str(error)) from None
        try:
            tokenizer, preprocess = CaptionTokenizer.from_json(model.description["tokenizer"]), model.preprocess
        except (ValueError, AttributeError) as error:
            raise WeightsError(f"{path}: {error}") from None
        if len(tokenizer) > model.decoder.vocabulary:
            raise WeightsError(
                f"{path}: a tokenizer of {len(tokenizer)} entries, the model has {model.decoder.vocabulary}"
            )
        call = {"compressed_size": compressed_size} if compressed_size else {}
        writer = cls(model.to(device), tokenizer, beams, length_penalty, call)
        writer.preprocess = preprocess
        return writer

    @torch.no_grad()
    def __call__(self, videos: Tensor) -> list[str]:
        """A caption each of clips, uint8 (B, 3, T, H, W)."""
        like = next(self.model.parameters())
        memory = self.model.memory(to_model_input(videos, like.device, like.dtype), **self.call)
        decoder, options = self.model.decoder, {"entries": len(self.tokenizer), "length_penalty": self.length_penalty}
        if self.beams == 1:
            tokens, _ = greedy_search(decoder, memory, **options)
        else:
            tokens, _ = beam_search(decoder, memory, self.beams, **options)
        return [self.tokenizer.decode(row) for row in tokens.tolist()]


def write_all(
    writer: CaptionWriter, loader: DataLoader, total: int, description: str, **bar: Any
) -> tuple[dict[int, str], dict[int, str]]:
    """Captions of all that a loader brings, and what kept the others from being read, both by ``video_index``.

    Args:
        loader: samples of `data_pipelines.datasets.clips.MultiViewDataset`, one view each.
        total: images of all ranks together.
        bar: further options of the progress bar.
    """
    written: dict[int, str] = {}
    broken: dict[int, str] = {}
    with progress(total=total, unit="image", desc=description, **bar) as shown:
        for batch in loader:
            captions = writer(batch["video"][:, 0])
            for index, caption, reason in zip(batch["video_index"].tolist(), captions, batch["failed"], strict=True):
                if reason:
                    broken[index] = reason
                else:
                    written[index] = caption
            shown.update(len(captions))
    return written, broken
