"""The captioning task: a frozen encoder and a decoder that learns to write captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from data_pipelines.datasets.captions import (
    KARPATHY_FILE,
    CaptionedClips,
    CaptionManifest,
    read_caption_list,
    read_karpathy,
)
from data_pipelines.io.errors import MissingDataError
from data_pipelines.loader import eval_loader
from lookupvivit.captioning.config import CaptioningConfig
from lookupvivit.captioning.decoder import PAD, START
from lookupvivit.captioning.figures import caption_grid, middle_frames
from lookupvivit.captioning.generation import CaptionGenerator, caption_dataset
from lookupvivit.captioning.metrics import caption_scores
from lookupvivit.captioning.model import Captioner
from lookupvivit.captioning.tokenizer import CaptionTokenizer
from lookupvivit.config import ConfigError, DataConfig
from lookupvivit.models.base import Model
from lookupvivit.training import checkpointing, ema
from lookupvivit.training.build import build_model, build_on_meta, load_init_from, model_arguments
from lookupvivit.training.data import multi_view_dataset, train_transform
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.training.losses import TaskLoss
from lookupvivit.training.manifests import exclude_absent
from lookupvivit.visualization.canvas import save_png


class Captioning:
    """A `lookupvivit.training.tasks.Task`: predict the next token of an image's caption, scored by CIDEr-D."""

    metric = "CIDEr"
    copies: np.ndarray | None = None

    def __init__(self, config: CaptioningConfig, world: World) -> None:
        self.config, self.world = config, world

    def build_model(self) -> Captioner:
        """See `Task`."""
        return build_captioner(self.config)

    def load_initial_weights(self, model: Model) -> str:
        """See `Task`: into the encoder; the decoder always starts at random."""
        if self.config.init_from is None:
            return "NOTE: init_from is not set, so the encoder is frozen at random weights"
        encoder = build_encoder(self.config)
        report = load_init_from(encoder, self.config)
        cast(Captioner, model).set_encoder(encoder)
        report.notes.append("the encoder's classifiers are removed, and its other weights are frozen")
        return f"init_from {self.config.init_from}: {report}"

    def count_samples(self) -> int:
        """See `Task`."""
        train_set, _ = (present_captions(self.config, split) for split in ("train", "val"))
        return len(train_set)

    def read_data(self) -> None:
        """See `Task`; also fits the tokenizer."""
        config, is_main = self.config, self.world.is_main
        self.train_set, self.val_set = (present_captions(config, split, is_main) for split in ("train", "val"))
        if len(self.val_set) < 2:
            raise ConfigError(
                f"data: {self.val_set.images.source} has a single validation image, expected 2 or more: "
                "CIDEr weights words by the number of images that they describe"
            )
        self.num_samples = len(self.train_set)
        self.tokenizer = fit_tokenizer(config, self.train_set, is_main)
        self.clips = multi_view_dataset(config, self.val_set.images, 1, 1)

    def description(self) -> dict[str, Any]:
        """See `Task`."""
        return {
            "name": self.config.model.name,
            "overrides": model_arguments(self.config),
            "captioner": self.config.caption.model_dump(),
            "preprocessing": self.config.data.preprocess().to_dict(),
            "tokenizer": self.tokenizer.to_json(),
        }

    def training_set(self) -> CaptionedClips:
        """See `Task`."""
        data = self.config.data
        return CaptionedClips(
            self.train_set,
            PaddedTokens(self.tokenizer, self.config.caption.length),
            data.preprocess().sampling,
            train_transform(self.config, self.train_set.images),
            self.config.seed,
            data.repeats,
            data.backend,
            data.decode_seconds,
            data.max_pixels,
        )

    def loss(
        self, engine: Any, video: Tensor, batch: dict[str, Any], call: dict[str, Any], rng: np.random.Generator
    ) -> TaskLoss:
        """See `Task`: cross-entropy with teacher forcing."""
        tokens = batch["tokens"].to(video.device, non_blocking=True)  # (B, L)
        shifted = F.pad(tokens[:, :-1], (1, 0), value=START)
        logits = engine(video, shifted, **call).logits  # (B, L, V)
        return TaskLoss(caption_loss(logits, tokens, self.config.augment.label_smoothing)[None])

    def validate(self, model: nn.Module, step: int, log: RunLog) -> dict[str, float]:
        """See `Task`: CIDEr-D times 100 and BLEU-4 in per cent, of greedy captions of the central view."""
        config, world = self.config, self.world
        loader = eval_loader(self.clips, world.rank, world.size, config.eval.batch_size, config.data.workers)
        bar = {"leave": False, "disable": world.rank > 0}
        own = caption_dataset(self._generator(model), loader, len(self.val_set), "validation", **bar)
        results: list[Any] | None = [own]
        if world.size > 1:
            results = [None] * world.size if world.is_main else None
            dist.gather_object(own, results)
        if results is None:
            return {}
        captions = {index: text for written, _ in results for index, text in written.items()}
        failed = {index: reason for _, reasons in results for index, reason in reasons.items()}
        try:
            scores = caption_scores(captions, {index: self.val_set.captions_of(index) for index in captions})
        except ValueError as error:
            raise ConfigError(f"data: validation on {self.val_set.images.source}, {error}") from None
        cider, bleu = 100 * scores["CIDEr"], 100 * scores["BLEU-4"]
        excluded = f" (without {len(failed)} images that failed)" if failed else ""
        log.print(f"step {step}: val CIDEr {cider:.1f}, BLEU-4 {bleu:.1f}{excluded}")
        return {"CIDEr": cider, "BLEU-4": bleu}

    def draw(self, model: nn.Module, step: int, log: RunLog) -> None:
        """See `Task`: captions of a few images, evenly spread over the validation set."""
        generator = self._generator(model)
        if not self.world.is_main:
            return
        count = min(self.config.log.attention_clips, len(self.val_set))
        indices = np.linspace(0, len(self.val_set) - 1, count).round().astype(int).tolist()
        samples = [sample for sample in map(self.clips.__getitem__, indices) if not sample["failed"]]
        if not samples:
            return
        videos = torch.stack([sample["video"][0] for sample in samples])  # (N, 3, T, H, W)
        figure = caption_grid(middle_frames(videos), generator(videos), f"greedy captions at step {step}")
        log.image(step, "captions", figure)
        save_png(log.run_dir / "captions" / f"step_{step:08d}.png", figure)

    def _generator(self, model: nn.Module) -> CaptionGenerator:
        """Generation needs whole weights, so with ZeRO-3 each rank gathers a copy; collective."""
        captioner: Any = model
        if not isinstance(model, Captioner):  # DeepSpeed's engine
            if self.config.runtime.zero_stage == 3:
                weights = checkpointing.full_state_dict(model)
                captioner = ema.averaged_copy(model, build_on_meta(self.build_model), weights)
            else:
                captioner = model.module
        return CaptionGenerator(captioner, self.tokenizer, compressed_size=self.config.eval.compressed_size)


def build_encoder(config: CaptioningConfig) -> Model:
    """The configured encoder with the classifier of one class, which `Captioner` removes."""
    return build_model(config, num_classes=1)


def build_captioner(config: CaptioningConfig) -> Captioner:
    """The configured captioner with random weights.

    Raises:
        ConfigError: impossible arguments.
    """
    encoder = build_encoder(config)
    try:
        return Captioner(encoder, **dict(config.caption))
    except ValueError as error:
        raise ConfigError(f"caption: {error}") from None


class PaddedTokens:
    """Turns a caption into a padded row of tokens (L,); loader workers can pickle it, unlike a closure."""

    def __init__(self, tokenizer: CaptionTokenizer, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, caption: str) -> np.ndarray:
        return self.tokenizer.padded(caption, self.length)


def caption_loss(logits: Tensor, tokens: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy averaged over the tokens of each caption, then over captions; in float32.

    The weighting is big_vision's. It makes a step independent of how the batch is split into micro-batches.

    Args:
        logits: (B, L, V).
        tokens: (B, L) int64, `PAD` after a caption's end.
        label_smoothing: share of the target that is spread over the vocabulary.
    """
    per_token = F.cross_entropy(
        logits.float().flatten(0, 1),
        tokens.flatten(),
        ignore_index=PAD,
        reduction="none",
        label_smoothing=label_smoothing,
    )  # (B * L,), 0 where ignored
    return (per_token.view_as(tokens).sum(dim=1) / (tokens != PAD).sum(dim=1)).mean()


def listed_captions(data: DataConfig, split: str) -> CaptionManifest:
    """All images of ``split`` ("train" or "val") with their captions, whether or not their files exist."""
    root = Path(data.root)
    if data.dataset == "coco_captions":
        return read_karpathy(karpathy_file(root), split, root)
    return read_caption_list(root / (data.train_list if split == "train" else data.val_list), root)


def karpathy_file(root: Path) -> Path:
    """Find Karpathy's file in ``root`` or in its folder annotations.

    Raises:
        MissingDataError: it is in neither.
    """
    candidates = (root / KARPATHY_FILE, root / "annotations" / KARPATHY_FILE)
    for file in candidates:
        if file.is_file():
            return file
    raise MissingDataError(
        f"{root}: found neither {KARPATHY_FILE} nor annotations/{KARPATHY_FILE}, which holds COCO's captions "
        "in Karpathy's split"
    )


def present_captions(config: CaptioningConfig, split: str, verbose: bool = True) -> CaptionManifest:
    """The images of ``split`` with their captions that are on disk and not in ``data.skip_list``."""
    listed = listed_captions(config.data, split)
    images, note = exclude_absent(config, listed.images)
    manifest = listed.with_images(images)
    if verbose:
        num_captions = sum(1 for _ in manifest.texts())
        print(f"{split}: {len(manifest)} images with {num_captions} captions from {images.source}{note}")
    return manifest


def fit_tokenizer(config: CaptioningConfig, train_set: CaptionManifest, verbose: bool) -> CaptionTokenizer:
    """Fit the tokenizer on the training captions. The result is the same on every rank and after a resume.

    Raises:
        ConfigError: ``caption.vocabulary`` is too small.
    """
    length, vocabulary = config.caption.length, config.caption.vocabulary
    try:
        tokenizer = CaptionTokenizer.fit(train_set.texts(), vocabulary)
    except ValueError as error:
        raise ConfigError(f"caption.{error}") from None
    if verbose:
        lengths = np.array([len(tokenizer.encode(text)) for text in train_set.texts()])
        unused = f" (of caption.vocabulary = {vocabulary})" if len(tokenizer) < vocabulary else ""
        print(
            f"tokenizer: {len(tokenizer)} entries{unused}; captions have {lengths.min()} to {lengths.max()} tokens, "
            f"{lengths.mean():.1f} on average; {(lengths > length).sum()} of {len(lengths)} are cut to "
            f"caption.length = {length}"
        )
    return tokenizer
