"""The multi-view test of a trained model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.atomic import write_json
from data_pipelines.io.files import digest
from lookupvivit.config import RunConfig
from lookupvivit.evaluation.aggregate import not_scored
from lookupvivit.evaluation.metrics import confusion_matrix
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.predictions import Predictions
from lookupvivit.evaluation.resume import PartialResult, restore
from lookupvivit.training import distributed
from lookupvivit.training.build import build_model, describe, dtype_on, trained_as
from lookupvivit.training.data import read_manifest, view_loader
from lookupvivit.training.distributed import World
from lookupvivit.visualization.canvas import confusion_picture, save_png
from lookupvivit.weights.files import load_weights, read_description, weights_file


def test(config: RunConfig) -> None:
    """Score the validation videos with ``eval.clips`` x ``eval.crops`` views each and save every view's logits.

    A test that was killed goes on with what it had on disk.
    """
    source = config.checkpoint or config.output_dir
    file = weights_file(source)  # a missing checkpoint is told before any data is touched
    world = distributed.start(config.runtime.threads)
    manifest = read_manifest(config, "val", world)
    trained_as(source, describe(config, manifest.class_names))
    model = build_model(config)
    report = load_weights(model, source, heads_may_differ=False)
    if world.is_main:
        print(f"checkpoint {source}: {report}")
    dtype = dtype_on(config, world)
    model.eval().to(world.device, dtype)
    clips, crops, size = config.eval.clips, config.eval.crops, config.eval.compressed_size
    folder = Path(config.output_dir) / "predictions"
    name = f"{clips}x{crops}" + (f"_compressed_{'x'.join(map(str, size))}" if size else "")
    told = digest(file) if world.is_main else ""
    partial = _unfinished(folder / f"{name}.partial", config, manifest, told, world)

    def forward(views: Tensor) -> Tensor:
        output = model(views, **config.eval.call)
        return torch.stack([output[head] for head in model.supervised], dim=1)  # (B, S, K)

    scored = predict_views(
        forward,
        view_loader(config, manifest, clips, crops, world, central=True, done=partial.done),
        len(manifest),
        manifest.class_names,
        config.eval.batch_size,
        world.device,
        dtype,
        description=f"test {clips}x{crops} views, {config.runtime.precision}",
        heads=model.supervised,
        partial=partial,
    )
    if scored is not None:
        predictions, broken = scored
        facts = {
            "checkpoint": str(source),
            "digest": told,
            "step": read_description(source).get("step"),
            "precision": config.runtime.precision,
            "sampling": config.data.sampling,
            "missing_videos": manifest.left_out,
            "broken_videos": broken,
            "compressed_size": size or getattr(model, "compressed_size", None),
        }
        save(replace(predictions, facts=facts), folder, name)
    world.barrier()
    partial.remove()  # on every machine
    distributed.stop()


def _unfinished(folder: Path, config: RunConfig, manifest: VideoManifest, weights: str, world: World) -> PartialResult:
    """What an interrupted test of the same weights, videos and settings has left, known to all ranks."""
    restored, done = None, [[]]
    if world.is_main:
        data = {key: value for key, value in asdict(config.data).items() if key not in ("workers", "decode_seconds")}
        views = {key: value for key, value in asdict(config.eval).items() if key != "save_seconds"}
        listed = json.dumps([list(manifest.paths), manifest.labels.tolist()])
        identity = {
            "checkpoint": weights,
            "videos": hashlib.blake2b(listed.encode(), digest_size=16).hexdigest(),
            "precision": config.runtime.precision,
            "device": world.device.type,
            **{f"data.{key}": value for key, value in data.items()},
            **{f"eval.{key}": value for key, value in views.items()},
        }
        restored, told = restore(folder, identity)
        print("".join(f"{line}\n" for line in told), end="")
        done = [restored["video_index"].tolist() if restored else []]
    if world.size > 1:
        dist.broadcast_object_list(done, src=0)
    return PartialResult(folder, config.eval.save_seconds, restored, frozenset(done[0]))


def save(predictions: Predictions, folder: Path, name: str) -> None:
    """Write every view's logits, the scores with the facts and the confusion picture, and print the scores."""
    summary = {**predictions.facts, **predictions.summary()}
    predictions.save(folder / f"{name}.npz")
    write_json(folder / f"{name}.json", summary)
    guesses = predictions.video_logits().argmax(axis=1)
    matrix = confusion_matrix(predictions.labels, guesses, len(predictions.class_names))
    save_png(folder / f"{name}_confusion.png", confusion_picture(matrix, predictions.class_names))
    for reason in predictions.facts["broken_videos"].values():
        print(f"BROKEN, not in the scores: {reason}")
    for views, score in summary["views"].items():
        low, high = score["top1_interval"]
        print(
            f"{views} views: top-1 {score['top1']:.2f} % ({score['top1_correct']} of {summary['videos']}; "
            f"95 % interval {low:.1f} to {high:.1f}), "
            f"top-5 {score['top5']:.2f} % ({score['top5_correct']})"
        )
    if left_out := not_scored(predictions.facts):
        print(f"not in the scores: {left_out}")
    print(f"saved {folder / name}.npz, .json and _confusion.png")
