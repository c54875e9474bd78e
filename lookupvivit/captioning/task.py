"""Learning to write captions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from data_pipelines.datasets.captions import KARPATHY, CaptionedClips, CaptionManifest, read_caption_list, read_karpathy
from data_pipelines.io.errors import MissingDataError
from data_pipelines.loader import eval_loader
from lookupvivit.captioning.figures import caption_sheet
from lookupvivit.captioning.generation import CaptionWriter, write_all
from lookupvivit.captioning.metrics import caption_scores
from lookupvivit.captioning.model import PAD, START, Captioner
from lookupvivit.captioning.tokenizer import CaptionTokenizer
from lookupvivit.config import ConfigError, DataConfig, RunConfig
from lookupvivit.training import checkpointing, ema
from lookupvivit.training.build import model_overrides, shapes_only
from lookupvivit.training.data import multi_view_dataset, preprocessing, present, sampling, train_transform
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.visualization.canvas import save_png


class Captioning:
    """A `lookupvivit.training.tasks.Task`: the next token of one of an image's captions, judged by CIDEr-D."""

    metric = "CIDEr"

    def __init__(self, config: RunConfig, world: World) -> None:
        self.config, self.world = config, world
        self.train_set, self.val_set = (present_captions(config, split, world.is_main) for split in ("train", "val"))
        if len(self.val_set) < 2:
            raise ConfigError(
                f"data: {self.val_set.images.source} has a single image to validate on, must have 2 or "
                "more: CIDEr weighs words by how few images have them"
            )
        self.samples = len(self.train_set)
        self.tokenizer = fit_tokenizer(config, self.train_set, world.is_main)
        self.clips = multi_view_dataset(config, self.val_set.images, 1, 1)

    def description(self) -> dict[str, Any]:
        """See `Task`."""
        return {
            "name": self.config.model.name,
            "overrides": model_overrides(self.config),
            "captioner": asdict(self.config.caption),
            "preprocessing": preprocessing(self.config.data),
            "tokenizer": self.tokenizer.to_json(),
        }

    def training_set(self) -> CaptionedClips:
        """See `Task`."""
        data = self.config.data
        return CaptionedClips(
            self.train_set,
            Padded(self.tokenizer, self.config.caption.length),
            sampling(data),
            train_transform(self.config, self.train_set.images),
            self.config.seed,
            data.repeats,
            data.backend,
            data.decode_seconds,
        )

    def loss(
        self, engine: nn.Module, video: Tensor, batch: dict[str, Any], call: dict[str, Any], rng: np.random.Generator
    ) -> Tensor:
        """See `Task`: teacher forcing."""
        tokens = batch["tokens"].to(video.device, non_blocking=True)
        shifted = F.pad(tokens[:, :-1], (1, 0), value=START)
        logits = engine(video, shifted, **call).logits
        return caption_loss(logits, tokens, self.config.augment.label_smoothing)[None]

    def validate(self, model: nn.Module, step: int, log: RunLog) -> dict[str, float]:
        """See `Task`: CIDEr-D times 100 and BLEU-4 in per cent of greedy captions, of the central view."""
        config, world = self.config, self.world
        loader = eval_loader(self.clips, world.rank, world.size, config.eval.batch_size, config.data.workers)
        shown = {"leave": False, "disable": world.rank > 0}
        found = write_all(self._writer(model), loader, len(self.val_set), "validation", **shown)
        shares = [found]
        if world.size > 1:
            shares = [None] * world.size if world.is_main else None
            dist.gather_object(found, shares)
        if not world.is_main:
            return {}
        written, broken = ({k: v for share in shares for k, v in share[part].items()} for part in (0, 1))
        try:
            scores = caption_scores(written, {index: self.val_set.of(index) for index in written})
        except ValueError as error:
            raise ConfigError(f"data: validation on {self.val_set.images.source}, {error}") from None
        cider, bleu = 100 * scores["CIDEr"], 100 * scores["BLEU-4"]
        left_out = f" (without {len(broken)} broken images)" if broken else ""
        log.say(f"step {step}: val CIDEr {cider:.1f}, BLEU-4 {bleu:.1f}{left_out}")
        return {"CIDEr": cider, "BLEU-4": bleu}

    def show(self, model: nn.Module, step: int, log: RunLog, run: Path) -> None:
        """See `Task`: captions of the same few images, evenly spread over the set."""
        writer = self._writer(model)
        if not self.world.is_main:
            return
        count = min(self.config.log.attention_clips, len(self.val_set))
        places = np.linspace(0, len(self.val_set) - 1, count).round().astype(int).tolist()
        samples = [sample for sample in map(self.clips.__getitem__, places) if not sample["broken"]]
        if not samples:
            return
        videos = torch.stack([sample["video"][0] for sample in samples])  # (N, 3, T, H, W)
        texts = writer(videos)
        pictures = videos[:, :, videos.shape[2] // 2].permute(0, 2, 3, 1).numpy()
        sheet = caption_sheet(pictures, texts, f"greedy captions at step {step}")
        log.picture(step, "captions", sheet)
        save_png(run / "captions" / f"step_{step:08d}.png", sheet)

    def _writer(self, model: nn.Module) -> CaptionWriter:
        """Captions come from a whole model: of sharded weights each rank puts one together; collective."""
        if not isinstance(model, Captioner):
            if self.config.runtime.zero_stage == 3:
                model = ema.averaged_copy(model, shapes_only(self.config), checkpointing.full_state(model))
            else:
                model = model.module
        return CaptionWriter(model, self.tokenizer, call=self.config.eval.call)


class Padded:
    """Captions as rows of tokens; an object that a loader's processes can be sent."""

    def __init__(self, tokenizer: CaptionTokenizer, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, caption: str) -> np.ndarray:
        return self.tokenizer.padded(caption, self.length)


def caption_loss(logits: Tensor, tokens: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the tokens of each caption, averaged over them, then over the captions; in float32.

    As big_vision weighs them: a step is the same however its batch is shared among ranks and micro-batches.

    Args:
        logits: (B, L, V).
        tokens: (B, L) int64, `PAD` after a caption's end.
    """
    each = F.cross_entropy(
        logits.float().flatten(0, 1),
        tokens.flatten(),
        ignore_index=PAD,
        reduction="none",
        label_smoothing=label_smoothing,
    ).view_as(tokens)  # 0 where ignored
    return (each.sum(dim=1) / (tokens != PAD).sum(dim=1)).mean()


def listed_captions(data: DataConfig, split: str) -> CaptionManifest:
    """All images of ``split`` ("train" or "val") with their captions, whether their files exist or not."""
    root = Path(data.root)
    if data.dataset == "coco_captions":
        return read_karpathy(karpathy_file(root), split, root)
    return read_caption_list(root / (data.train_list if split == "train" else data.val_list), root)


def karpathy_file(root: Path) -> Path:
    """Where Karpathy's file lies in ``root`` or its folder annotations."""
    places = (root / KARPATHY, root / "annotations" / KARPATHY)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise MissingDataError(
            f"{root}: found neither {KARPATHY} nor annotations/{KARPATHY}; it holds COCO's captions in Karpathy's split"
        )
    return found


def present_captions(config: RunConfig, split: str, tell: bool = True) -> CaptionManifest:
    """The images of ``split`` with their captions, as far as they are on disk and not in ``data.skip_list``."""
    listed = listed_captions(config.data, split)
    images, note = present(config, listed.images)
    found = listed.among(images)
    if tell:
        texts = sum(1 for _ in found.texts())
        print(f"{split}: {len(found)} images with {texts} captions from {images.source}{note}")
    return found


def fit_tokenizer(config: RunConfig, train_set: CaptionManifest, tell: bool) -> CaptionTokenizer:
    """Of the training captions: every rank, and a run that is resumed, fits the same one."""
    length, vocabulary = config.caption.length, config.caption.vocabulary
    try:
        tokenizer = CaptionTokenizer.fit(train_set.texts(), vocabulary)
    except ValueError as error:
        raise ConfigError(f"caption.{error}") from None
    if tell:
        lengths = np.array([len(tokenizer.encode(text)) for text in train_set.texts()])
        few = f" (caption.vocabulary is {vocabulary}, the others stay unused)" if len(tokenizer) < vocabulary else ""
        print(
            f"tokenizer: {len(tokenizer)} entries{few}; captions have {lengths.min()} to {lengths.max()} tokens, "
            f"{lengths.mean():.1f} on average, and {(lengths > length).sum()} of {len(lengths)} are cut to "
            f"caption.length, {length}"
        )
    return tokenizer
