"""The classification task: one class per video, or any number of them where the dataset's lists have several."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_pipelines.datasets.clips import ClipDataset
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.loader import balancing_copies
from data_pipelines.transforms.mixup import mix
from lookupvivit.config import ConfigError, RunConfig, require
from lookupvivit.evaluation.array_files import PredictionsError
from lookupvivit.evaluation.metrics import accuracies_text, reported_ranks
from lookupvivit.evaluation.multi_label import lowest_text
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.models.base import Model
from lookupvivit.training.attention_logging import AttentionLogger
from lookupvivit.training.build import build_model, classifier_description, freeze_blocks, load_init_from
from lookupvivit.training.data import train_dataset, view_loader
from lookupvivit.training.distillation import Distillation
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.training.losses import LOSSES, TaskLoss, class_weights, smooth_targets, softmax_cross_entropy
from lookupvivit.training.manifests import camera_motion_recipe, present_videos, read_manifest


class Classification:
    """A `lookupvivit.training.tasks.Task`: cross-entropy of every classifier, scored by top-1 accuracy or mAP."""

    def __init__(self, config: RunConfig, world: World) -> None:
        self.config, self.world = config, world
        self.distillation: Distillation | None = None

    @property
    def metric(self) -> str:
        """See `Task`."""
        return "mAP" if self.val_set.is_multi_label else "top1"

    def build_model(self) -> Model:
        """See `Task`."""
        return freeze_blocks(build_model(self.config), self.config.optim.freeze_blocks)

    def load_initial_weights(self, model: Model) -> str | None:
        """See `Task`."""
        if self.config.init_from is None:
            return None
        return f"init_from {self.config.init_from}: {load_init_from(model, self.config)}"

    def count_samples(self) -> int:
        """See `Task`. A camera_motion set that is not rendered yet counts as it will be."""
        if self.config.data.dataset == "camera_motion" and (count := self._count_unrendered()):
            return count
        train_set, val_set = (present_videos(self.config, split) for split in ("train", "val"))
        val_set.in_class_order(train_set.class_names, train_set.source)
        self._require_settings_of_labels(train_set, val_set)
        if self.config.distill.teacher is not None:
            Distillation(self.config, train_set.class_names, self.world)  # raises what the run would raise
        return len(train_set) if (copies := self._copies(train_set)) is None else int(copies.sum())

    def _count_unrendered(self) -> int:
        """The number of training videos of a camera_motion set that is not complete, else 0."""
        from data_pipelines.datasets.camera_motion import unrendered

        recipe, root = camera_motion_recipe(self.config), Path(self.config.data.root)
        missing = Counter(split for split, _ in unrendered(root, recipe))
        if not missing:
            return 0
        print(
            f"train: {recipe.train_videos} videos, {missing['train']} not yet rendered into {root}; "
            f"val: {recipe.validation_videos} videos, {missing['validation']} not yet rendered"
        )
        return recipe.train_videos

    def read_data(self) -> None:
        """See `Task`."""
        self.train_set, val_set = (read_manifest(self.config, split, self.world) for split in ("train", "val"))
        self.val_set = val_set.in_class_order(self.train_set.class_names, self.train_set.source)
        self._require_settings_of_labels(self.train_set, self.val_set)
        self.num_samples, self.copies = len(self.train_set), self._copies(self.train_set)
        self.criterion = LOSSES[self.config.optim.loss]
        if self.config.optim.class_weights:
            self._report_double_weights()
            weights = class_weights(self.train_set.labels, self.config.num_classes).to(self.world.device)
            self.criterion = partial(softmax_cross_entropy, weights=weights)
        if self.config.distill.teacher is not None:
            self.distillation = Distillation(self.config, self.train_set.class_names, self.world)
        self.attention_logger = AttentionLogger(self.config, self.val_set, self.world)

    def _require_settings_of_labels(self, train_set: VideoManifest, val_set: VideoManifest) -> None:
        """Raise a ConfigError if the settings do not suit videos with several classes, or only one set has these."""
        if train_set.is_multi_label != val_set.is_multi_label:
            one = val_set if train_set.is_multi_label else train_set
            raise ConfigError(f"data: found one label per video in {one.source}, several in the other list")
        if train_set.is_multi_label:
            found, source = self.config.optim.loss, f"several labels per video in {train_set.source}"
            require(found == "sigmoid", "optim.loss", found, f"sigmoid with {source}")
            if not val_set.labels.any():
                raise ConfigError(f"data: found no label in {val_set.source}, expected a video of at least one class")
            balances = self.config.data.balance_classes
            require(not balances, "data.balance_classes", balances, f"false with {source}")

    def _report_double_weights(self) -> None:
        if self.world.is_main and self.copies is not None and self.copies.max() > 1:
            print(
                "optim.class_weights: data.balance_classes already repeats the videos of smaller classes; with both, "
                "smaller classes have more influence than larger ones"
            )

    def _copies(self, train_set: VideoManifest) -> np.ndarray | None:
        return balancing_copies(train_set.labels) if self.config.data.balance_classes else None

    def description(self) -> dict[str, Any]:
        """See `Task`."""
        return classifier_description(self.config, self.val_set.class_names, self.val_set.is_multi_label)

    def training_set(self) -> ClipDataset:
        """See `Task`."""
        return train_dataset(self.config, self.train_set)

    def loss(
        self, engine: Any, video: Tensor, batch: dict[str, Any], call: dict[str, Any], rng: np.random.Generator
    ) -> TaskLoss:
        """See `Task`: the cross-entropy of each classifier with smoothed and mixed targets.

        ``top1`` is the per cent of clips whose highest logit is that of their class. Of mixed clips, it is the class of
        the larger part. Clips with several classes have no such score. With a teacher, each loss includes the weighted
        divergence from it; ``distill_loss`` is the sum of the divergences.
        """
        augment = self.config.augment
        labels = batch["label"].to(video.device, non_blocking=True)
        targets = smooth_targets(labels, self.config.num_classes, augment.label_smoothing)
        video, targets = mix(video, targets, augment.mixup, augment.cutmix, rng)
        scores = {}
        if self.distillation is None:
            output = engine(video, **call)
        else:
            output, divergences = self.distillation(engine, video, call)
            scores["distill_loss"] = divergences.sum()
        losses = torch.stack([self.criterion(output[name], targets) for name in engine.module.supervised])
        if self.distillation is not None:
            losses = losses + self.config.distill.weight * divergences
        if not self.train_set.is_multi_label:
            correct = output["logits"].detach().argmax(dim=1) == targets.argmax(dim=1)
            scores["top1"] = 100 * correct.float().mean()
        return TaskLoss(losses, scores)

    def validate(self, model: nn.Module, step: int, log: RunLog) -> dict[str, float]:
        """See `Task`: top-1 and top-5, or mAP, in per cent, and the loss, of one central view per video."""
        world, config = self.world, self.config
        result = predict_views(
            lambda views: model(views, **config.eval.call).logits,
            view_loader(config, self.val_set, 1, 1, world),
            len(self.val_set),
            self.val_set.class_names,
            config.eval.batch_size,
            world.device,
            next(model.parameters()).dtype,
            description="validation",
            nested=True,
        )
        if result is None:
            return {}
        predictions, failed = result
        try:
            score = predictions.summary()["views"]["1x1"]
        except PredictionsError as error:
            raise FloatingPointError(f"step {step}: validation, {error}; try a lower optim.lr") from None
        excluded = f", without {len(failed)} {self.val_set.unit}s that failed" if failed else ""
        log.print(f"step {step}: val {accuracies_text(score, config.num_classes)} (1 view{excluded})")
        logits, names = predictions.video_logits(), [f"top{k}" for k in reported_ranks(config.num_classes)]
        if predictions.is_multi_label:
            log.print(f"  {lowest_text(logits, predictions.labels, predictions.class_names)}")
            names = ["mAP"]
        scores = {name: score[name] for name in names}
        labels = smooth_targets(torch.from_numpy(predictions.labels), config.num_classes)
        loss = LOSSES[config.optim.loss](torch.from_numpy(logits), labels)
        return scores | {"loss": float(loss)}

    def draw(self, model: nn.Module, step: int, log: RunLog) -> None:
        """See `Task`: attention maps."""
        self.attention_logger.draw(model, step, log)
