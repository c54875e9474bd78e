"""Learning which class a video is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_pipelines.datasets.clips import ClipDataset
from data_pipelines.transforms.mixup import mix, smooth_one_hot
from lookupvivit.config import RunConfig
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.predictions import PredictionsError
from lookupvivit.training.attention_logging import AttentionWatch
from lookupvivit.training.build import describe
from lookupvivit.training.data import read_manifest, require_same_classes, train_dataset, view_loader
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.training.optimizer import LOSSES


class Classification:
    """A `lookupvivit.training.tasks.Task`: the cross-entropy of every head, judged by top-1."""

    metric = "top1"

    def __init__(self, config: RunConfig, world: World) -> None:
        self.config, self.world = config, world
        self.train_set, self.val_set = (read_manifest(config, split, world) for split in ("train", "val"))
        require_same_classes(self.train_set, self.val_set)
        self.samples = len(self.train_set)
        self.watch = AttentionWatch(config, self.val_set)

    def description(self) -> dict[str, Any]:
        """See `Task`."""
        return describe(self.config, self.val_set.class_names)

    def training_set(self) -> ClipDataset:
        """See `Task`."""
        return train_dataset(self.config, self.train_set)

    def loss(
        self, engine: nn.Module, video: Tensor, batch: dict[str, Any], call: dict[str, Any], rng: np.random.Generator
    ) -> Tensor:
        """See `Task`: the cross-entropy of mixed and smoothed labels, by head."""
        augment = self.config.augment
        labels = batch["label"].to(video.device, non_blocking=True)
        targets = smooth_one_hot(labels, self.config.data.num_classes, augment.label_smoothing)
        video, targets = mix(video, targets, augment.mixup, augment.cutmix, rng)
        output, loss = engine(video, **call), LOSSES[self.config.optim.loss]
        return torch.stack([loss(output[name], targets) for name in engine.module.supervised])

    def validate(self, model: nn.Module, step: int, log: RunLog) -> dict[str, float]:
        """See `Task`: top-1 and top-5 with one central view per video, in per cent."""
        world, config = self.world, self.config
        scored = predict_views(
            lambda views: model(views, **config.eval.call).logits,
            view_loader(config, self.val_set, 1, 1, world),
            len(self.val_set),
            self.val_set.class_names,
            config.eval.batch_size,
            world.device,
            next(model.parameters()).dtype,
            description="validation",
            within=True,
        )
        if scored is None:
            return {}
        predictions, broken = scored
        try:
            accuracy = predictions.summary()["views"]["1x1"]
        except PredictionsError as error:
            raise FloatingPointError(f"step {step}: validation, {error}; try a lower optim.lr") from None
        left_out = f", without {len(broken)} broken videos" if broken else ""
        log.say(f"step {step}: val top-1 {accuracy['top1']:.2f} %, top-5 {accuracy['top5']:.2f} % (1 view{left_out})")
        return {"top1": accuracy["top1"], "top5": accuracy["top5"]}

    def show(self, model: nn.Module, step: int, log: RunLog, run: Path) -> None:
        """See `Task`: attention maps."""
        self.watch.show(model, step, log, run, self.world)
