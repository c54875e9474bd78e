"""Generate captions with a trained captioner: of a batch of clips, of files, or of a whole dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_pipelines.io.errors import DataError
from data_pipelines.io.progress import progress
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.captioning.model import Captioner
from lookupvivit.captioning.search import beam_search, greedy_search
from lookupvivit.captioning.tokenizer import CaptionTokenizer
from lookupvivit.models.token_settings import check_compressed_size
from lookupvivit.sizes import Size
from lookupvivit.weights.files import WeightsError, load_model, read_description
from lookupvivit.weights.metadata import preprocess_of

if TYPE_CHECKING:
    from data_pipelines.preprocess import Preprocess


class CaptionGenerator:
    """A captioner with its tokenizer: pixels in, text out.

    Args:
        model: in eval mode, on the device to compute on.
        tokenizer: the one that the model was trained with.
        num_beams: 1 for greedy search, otherwise of beam search.
        length_penalty: of the scores; see `lookupvivit.captioning.search`.
        compressed_size: (t, h, w) compressed tokens of a LookupViT encoder; None for its own.

    Attributes:
        preprocess: the preprocessing of the model's input; only of a generator that `load` returned.
    """

    preprocess: Preprocess

    def __init__(
        self,
        model: Captioner,
        tokenizer: CaptionTokenizer,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        compressed_size: Size | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.num_beams, self.length_penalty, self.compressed_size = num_beams, length_penalty, compressed_size

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        num_beams: int = 1,
        length_penalty: float = 1.0,
        compressed_size: Size | None = None,
    ) -> CaptionGenerator:
        """Load a trained captioner.

        Args:
            path: a run directory, a checkpoint or its model.safetensors.
            device: to compute on.
            num_beams, length_penalty, compressed_size: as for the class.

        Raises:
            WeightsError: not a captioner, its tokenizer or preprocessing is missing or corrupt, or its encoder does not
                support the compressed size.
        """
        model = load_model(path)
        if not isinstance(model, Captioner):
            raise WeightsError(f"{path}: found a {type(model).__name__}, a classifier; expected a captioner")
        try:
            if compressed_size is not None:
                check_compressed_size(model.encoder, compressed_size)
            tokenizer = CaptionTokenizer.from_json(read_description(path)["tokenizer"])
            preprocess = preprocess_of(model)
        except ValueError as error:
            raise WeightsError(f"{path}: {error}") from None
        if len(tokenizer) > model.decoder.vocabulary:
            raise WeightsError(
                f"{path}: found a tokenizer of {len(tokenizer)} entries, expected at most {model.decoder.vocabulary}, "
                "the model's vocabulary"
            )
        generator = cls(model.to(device), tokenizer, num_beams, length_penalty, compressed_size)
        generator.preprocess = preprocess
        return generator

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> list[str]:
        """One caption per clip, for uint8 clips (B, 3, T, H, W)."""
        weight = next(self.model.parameters())
        video = to_model_input(clips, weight.device, weight.dtype)
        memory = self.model.memory(video, self.compressed_size)
        decoder, vocab_size = self.model.decoder, len(self.tokenizer)
        if self.num_beams == 1:
            tokens, _ = greedy_search(decoder, memory, vocab_size, self.length_penalty)
        else:
            tokens, _ = beam_search(decoder, memory, self.num_beams, vocab_size, self.length_penalty)
        return [self.tokenizer.decode(row) for row in tokens.tolist()]


@dataclass(frozen=True)
class CaptionedFiles:
    """The captions of a batch of files.

    Attributes:
        captions: by path.
        clips: what the model saw, uint8 (N, 3, T, H, W), in the order of the N ``captions``; empty if N is 0.
        errors: by path, why other files could not be read.
    """

    captions: dict[str, str]
    clips: Tensor
    errors: dict[str, str]

    def as_json(self) -> list[dict[str, str]]:
        """One entry per file, with its path and its error or caption."""
        errors = [{"path": path, "error": error} for path, error in self.errors.items()]
        return [*errors, *({"path": path, "caption": caption} for path, caption in self.captions.items())]


def caption_files(generator: CaptionGenerator, paths: Sequence[str], batch_size: int) -> Iterator[CaptionedFiles]:
    """Yield the captions of ``batch_size`` files at a time.

    Args:
        generator: of `CaptionGenerator.load`.
        paths: images, videos or folders of images.
        batch_size: maximum number of clips per forward pass.
    """
    for start in range(0, len(paths), batch_size):
        clips: dict[str, Tensor] = {}
        errors: dict[str, str] = {}
        for path in paths[start : start + batch_size]:
            try:
                clips[path] = generator.preprocess.clip(path)
            except (DataError, OSError) as error:
                errors[path] = str(error)
        if clips:
            batch = torch.stack(list(clips.values()))
            yield CaptionedFiles(dict(zip(clips, generator(batch), strict=True)), batch, errors)
        else:
            yield CaptionedFiles({}, torch.empty(0), errors)


def caption_dataset(
    generator: CaptionGenerator, loader: DataLoader, num_images: int, description: str, **bar_options: Any
) -> tuple[dict[int, str], dict[int, str]]:
    """Generate captions for all samples of a loader.

    Args:
        generator: of captions.
        loader: samples of `data_pipelines.datasets.clips.MultiViewDataset`, with one view each.
        num_images: on all ranks together, for the progress bar.
        description: of the progress bar.
        bar_options: further options of `data_pipelines.io.progress.progress`.

    Returns:
        Captions, and the reasons why other images could not be read, both by ``video_index``.
    """
    captions: dict[int, str] = {}
    failed: dict[int, str] = {}
    with progress(total=num_images, unit="image", desc=description, **bar_options) as bar:
        for batch in loader:
            texts = generator(batch["video"][:, 0])
            for index, text, reason in zip(batch["video_index"].tolist(), texts, batch["failed"], strict=True):
                if reason:
                    failed[index] = reason
                else:
                    captions[index] = text
            bar.update(len(texts))
    return captions, failed
