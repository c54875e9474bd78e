"""What a run directory contains: the model and its cost, accuracies, and where its figures are."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_pipelines.io.json_files import SMALL_BYTES, read_json, read_json_lines
from lookupvivit.evaluation.metrics import accuracies_text
from lookupvivit.profiling.flops import UncountedOperatorError, count_cost
from lookupvivit.weights.files import load_classifier, read_description


def summarize_run(run: Path) -> str:
    """Summarise a run directory as text; parts that the run does not have are omitted.

    Raises:
        WeightsError: the run has no classifier.
    """
    model, description = load_classifier(run), read_description(run)
    frames, height, width = size = description["overrides"]["input_size"]
    num_classes = description["num_classes"]
    clip, unit = ("images", "image") if frames == 1 else (f"{frames} frames", "video")
    lines = [
        f"{description['name']}: {clip} of {height} x {width}, {num_classes} classes",
        f"  cost: {_flops(model, size)}, {sum(map(torch.numel, model.parameters())) / 1e6:.2f} M parameters",
    ]
    if validation := last_validation(run / "log.jsonl"):
        text = accuracies_text(validation, num_classes)
        lines.append(f"  validation after step {validation['step']} (1x1 view: central clip and crop): {text}")
    for file in sorted((run / "predictions").glob("*.json")):
        test = read_json(file, dict, max_bytes=SMALL_BYTES)
        lines.append(f"  test with {file.stem} views of {test['videos']} {unit}s:")
        for views, scores in test["views"].items():
            lines.append(f"    {views:>5} views: {accuracies_text(scores, num_classes)}")
        if "class_ap" not in test:  # of several classes per video, which have no confusion matrix
            lines.append(f"    confusion matrix: {file.with_name(file.stem + '_confusion.png')}")
    if figures := sorted((run / "attention").glob("*.png")):
        lines.append(f"  attention maps during training ({len(figures)}): the last is {figures[-1]}")
    tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))  # works without an active environment
    lines.append(f"  training curves: {tensorboard} --logdir {run / 'tensorboard'}")
    return "\n".join(lines)


def _flops(model: nn.Module, size: Sequence[int]) -> str:
    try:
        return f"{count_cost(model, (1, 3, *size)).macs / 1e9:.3f} GFLOPs per view (multiply-adds)"
    except UncountedOperatorError as error:
        return f"unknown GFLOPs ({error})"


def last_validation(log: Path) -> dict[str, Any] | None:
    """The last validation record of a log.jsonl; None if there is none, for example without the file."""
    validations = [record for record in read_json_lines(log, "kind", "step") if record["kind"] == "val"]
    return validations[-1] if validations else None
