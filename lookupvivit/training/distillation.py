"""Distillation: an additional loss that compares the trained model with a teacher on the same augmented clips.

The teacher is another model, or the trained model itself with all lookup tokens and, in multi-resolution training, at
the largest compressed size (in-place distillation; Yu and Huang, 2019, arXiv:1903.05134). It is in eval mode, has no
gradient, and is not part of the run's checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.evaluation.image_outputs import classifier_inputs, classifiers_of
from lookupvivit.models.base import Model
from lookupvivit.models.registry import create_model, current_arguments
from lookupvivit.models.token_settings import check_compressed_size
from lookupvivit.training.build import compute_dtype
from lookupvivit.training.distributed import World
from lookupvivit.training.losses import feature_distillation, logit_distillation
from lookupvivit.weights.files import read_description
from lookupvivit.weights.importing import import_weights

SELF = "self"  # value of ``distill.teacher``


class Distillation:
    """Runs the trained model and its teacher on the same clips, and compares them.

    Args:
        config: ``distill`` describes teacher and loss.
        class_names: of the trained model, K.
        world: the device; rank 0 prints what was loaded.

    Raises:
        ConfigError: the teacher has other classes, or does not support its compressed size.
        WeightsError: the teacher's weights cannot be read.
    """

    def __init__(self, config: RunConfig, class_names: tuple[str, ...], world: World) -> None:
        self.settings, self.is_sigmoid = config.distill, config.optim.loss == "sigmoid"
        self.teacher: nn.Module | None = None
        size = config.distill.compressed_size
        if config.distill.teacher == SELF:
            sizes = config.model.multi_resolution
            size = sizes.largest if sizes else None  # and all tokens
        else:
            self.teacher = load_teacher(config, class_names, world)
        self.call = {"compressed_size": size} if size else {}

    def __call__(self, engine: Any, video: Tensor, call: dict[str, Any]) -> tuple[Any, Tensor]:
        """Run the trained model on ``video`` with the keyword arguments ``call``.

        Returns:
            Its output, and the loss (S,) of each of its classifiers relative to the teacher: zeros where the trained
            model is its own teacher at the size of ``call``.
        """
        if self.teacher is None and call == self.call:
            output = engine(video, **call)
            return output, output["logits"].new_zeros(len(engine.module.supervised), dtype=torch.float32)
        with torch.no_grad():
            if self.teacher is None:
                engine.eval()
                targets = _run(engine, engine.module, video, self.call)
                engine.train()
            else:
                targets = _run(self.teacher, self.teacher, video, self.call)
        own = _run(engine, engine.module, video, call)
        return own.output, torch.stack([self._loss(own, targets, name) for name in engine.module.supervised])

    def _loss(self, own: _Outcome, targets: _Outcome, classifier: str) -> Tensor:
        """The loss of one classifier, whose logits are the field ``classifier`` of the output."""
        if self.settings.targets == "logits":
            student, teacher = own.output[classifier], targets.output["logits"]
            return logit_distillation(student, teacher, self.settings.temperature, self.is_sigmoid)
        stream = classifier.removesuffix("logits")
        student, teacher = own.features[stream], targets.features_of(stream)
        if student.shape != teacher.shape:
            raise ConfigError(
                f"distill.targets: found features of width {teacher.shape[1]}, expected {student.shape[1]} as in this "
                "model, or distill.targets=logits"
            )
        return feature_distillation(student, teacher)


@dataclass(frozen=True)
class _Outcome:
    """What a forward pass computed: its output, and the inputs of its classifiers (B, D) by stream."""

    output: Any
    features: dict[str, Tensor]

    def features_of(self, stream: str) -> Tensor:
        """The features of a stream; of a model without this stream, the mean of its streams."""
        return self.features[stream] if stream in self.features else torch.stack([*self.features.values()]).mean(dim=0)


def _run(model: Any, module: nn.Module, video: Tensor, call: dict[str, Any]) -> _Outcome:
    """Call ``model``, which may be an engine around ``module``."""
    with classifier_inputs(module) as inputs:
        output = model(video, **call)
    streams = [name.removesuffix("head") for name in classifiers_of(module)]
    return _Outcome(output, dict(zip(streams, inputs, strict=True)))


def load_teacher(config: RunConfig, class_names: tuple[str, ...], world: World) -> nn.Module:
    """The model that ``distill`` describes, for clips of this run, in eval mode on the device.

    The columns of its logits are in the order of ``class_names``.

    Raises:
        ConfigError, WeightsError: see `Distillation`.
    """
    distill, data = config.distill, config.data
    assert distill.teacher is not None
    own_names: tuple[str, ...] | None = None
    if distill.model is None:
        description = read_description(distill.teacher)
        if "captioner" in description:
            raise ConfigError(f"distill.teacher: {distill.teacher}: found a captioner, expected a classifier")
        name, overrides = description["name"], description["overrides"]
        num_classes, own_names = description["num_classes"], tuple(description.get("class_names", ()))
    else:
        name, overrides = distill.model.name, current_arguments(distill.model.overrides)
        num_classes = config.num_classes
    try:
        arguments = {**overrides, "input_size": (data.frames, data.crop, data.crop)}
        teacher = create_model(name, num_classes, **arguments)
        if distill.compressed_size:
            check_compressed_size(teacher, distill.compressed_size, "compressed_size")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"distill.teacher: {error}") from None
    report = import_weights(teacher, distill.teacher, config.init_inflation, config.init_pixels)
    if distill.targets == "logits":
        _require_classifier(config, report.initialised)
        if own_names:
            _reorder_classes(teacher, own_names, class_names, distill.teacher)
    if world.is_main:
        print(f"distill.teacher {distill.teacher}: {report}")
    return teacher.requires_grad_(False).eval().to(world.device, compute_dtype(config, world))


def _require_classifier(config: RunConfig, initialised: list[str]) -> None:
    if any(name.rpartition(".")[0].endswith("head") for name in initialised):
        raise ConfigError(
            f"distill.teacher: found weights without a classifier of {config.num_classes} classes in "
            f"{config.distill.teacher}, expected one, or distill.targets=features"
        )


def _reorder_classes(teacher: Model, own: tuple[str, ...], names: tuple[str, ...], source: str) -> None:
    """Permute the rows of the teacher's classifiers from its own class names to ``names``."""
    if set(own) != set(names):
        raise ConfigError(
            f"distill.teacher: found {len(own)} classes, {own[0]} .. {own[-1]}, in {source}, expected the {len(names)} "
            f"of this run, {names[0]} .. {names[-1]}, or distill.targets=features"
        )
    rows = [own.index(name) for name in names]
    with torch.no_grad():
        for classifier in classifiers_of(teacher).values():
            for parameter in classifier.parameters():
                parameter.copy_(parameter[rows].clone())
