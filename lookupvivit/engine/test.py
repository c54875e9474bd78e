"""The multi-view test of a trained model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.engine import distributed
from lookupvivit.engine.build import build_model, describe, dtype_on
from lookupvivit.engine.data import read_manifest, view_loader
from lookupvivit.evaluation.metrics import confusion_matrix
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.predictions import Predictions
from lookupvivit.settings import changes
from lookupvivit.visualize.pictures import confusion_picture, save_png
from lookupvivit.weights.files import load_weights, read_description, weights_file


def test(config: RunConfig) -> None:
    """Score the validation videos with ``eval.clips`` x ``eval.crops`` views each and save every view's logits."""
    source = config.checkpoint or config.output_dir
    weights_file(source)  # a missing checkpoint is told before any data is touched
    world = distributed.start(config.engine.threads)
    manifest = read_manifest(config, "val", world)
    _same_as_trained(config, manifest.class_names, source)
    model = build_model(config)
    report = load_weights(model, source, heads_may_differ=False)
    if world.is_main:
        print(f"checkpoint {source}: {report}")
    dtype = dtype_on(config, world)
    model.eval().to(world.device, dtype)
    clips, crops, size = config.eval.clips, config.eval.crops, config.eval.compressed_size
    scored = predict_views(
        lambda views: model(views, **config.eval.call).logits,
        view_loader(config, manifest, clips, crops, world),
        len(manifest), manifest.class_names, config.eval.batch_size, world.device, dtype,
        description=f"test {clips}x{crops} views, {config.engine.precision}",
    )  # fmt: skip
    if scored is not None:
        predictions, broken = scored
        for reason in broken.values():
            print(f"BROKEN, not in the scores: {reason}")
        facts = {
            "checkpoint": str(source), "step": read_description(source).get("step"),
            "precision": config.engine.precision, "missing_videos": manifest.left_out,
            "broken_videos": broken,
            "compressed_size": size or getattr(model, "compressed_size", None),
        }  # fmt: skip
        name = f"{clips}x{crops}" + (f"_compressed_{'x'.join(map(str, size))}" if size else "")
        save(predictions, Path(config.output_dir) / "predictions", name, facts)
    distributed.stop()


def _same_as_trained(config: RunConfig, class_names: tuple[str, ...], source: str) -> None:
    """ConfigError where the weights were trained as another model, on other classes or on clips of another kind."""
    theirs, ours = read_description(source), describe(config, class_names)
    differing = changes({key: theirs.get(key) for key in ours}, ours)
    if differing:
        raise ConfigError(f"checkpoint: {source} was trained with other settings than this test's: "
                          f"{'; '.join(differing[:3])}")  # fmt: skip


def save(predictions: Predictions, folder: Path, name: str, facts: dict[str, Any]) -> None:
    """Write every view's logits, the scores with ``facts`` and the confusion picture, and print the scores."""
    summary = {**facts, **predictions.summary()}
    predictions.save(folder / f"{name}.npz")
    beside = folder / f".{name}.json.tmp"
    beside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, folder / f"{name}.json")
    guesses = predictions.video_logits().argmax(axis=1)
    matrix = confusion_matrix(predictions.labels, guesses, len(predictions.class_names))
    save_png(folder / f"{name}_confusion.png", confusion_picture(matrix, predictions.class_names))
    for views, score in summary["views"].items():
        low, high = score["top1_interval"]
        print(
            f"{views} views: top-1 {score['top1']:.2f} % ({score['top1_correct']} of {summary['videos']}; "
            f"95 % interval {low:.1f} to {high:.1f}), "
            f"top-5 {score['top5']:.2f} % ({score['top5_correct']})"
        )
    print(f"saved {folder / name}.npz, .json and _confusion.png")
