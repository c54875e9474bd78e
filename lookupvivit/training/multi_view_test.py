"""The multi-view test of a trained model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.atomic import write_json
from data_pipelines.io.hashing import file_digest
from data_pipelines.io.output_paths import require_output_folder
from lookupvivit.config import RunConfig
from lookupvivit.config.loading import to_dict
from lookupvivit.evaluation.aggregate import excluded_videos
from lookupvivit.evaluation.metrics import class_scores, confusion_matrix
from lookupvivit.evaluation.multi_label import class_average_precisions
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.resume import PartialResult, restore, unfinished_folder
from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.training import distributed
from lookupvivit.training.build import build_model, classifier_description, compute_dtype, require_trained_as
from lookupvivit.training.data import view_loader
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import read_manifest
from lookupvivit.visualization.canvas import save_png
from lookupvivit.visualization.confusion_figure import confusion_figure
from lookupvivit.weights.files import load_weights, read_description, weights_file


def test(config: RunConfig) -> None:
    """Score the validation videos with ``eval.clips`` x ``eval.crops`` views each, and save the logits of every view.

    An interrupted test resumes after the videos that it has finished.
    """
    weights_file(config.checkpoint or config.output_dir)  # raises for a missing checkpoint
    folder = Path(config.output_dir) / "predictions"
    require_output_folder(folder)
    world = distributed.start(config.runtime.threads)
    name = config.eval.result_name
    with distributed.exclusive(folder / f".{name}.lock", "output_dir", world):
        run_test(config, folder, name, world)
    distributed.stop()


def run_test(config: RunConfig, folder: Path, name: str, world: World) -> None:
    """Test, and save the results as ``folder``/``name``.*; collective."""
    # Model: what is wrong with the checkpoint shows before any data is read.
    source = config.checkpoint or config.output_dir
    weights = weights_file(source)
    expected = classifier_description(config, ())
    del expected["class_names"]
    require_trained_as(source, expected)
    model = build_model(config)
    report = load_weights(model, source, heads_may_differ=False)
    if world.is_main:
        print(f"checkpoint {source}: {report}")
    dtype = compute_dtype(config, world)
    model.eval().to(world.device, dtype)
    manifest = read_manifest(config, "val", world)
    if trained_classes := read_description(source).get("class_names"):
        manifest = manifest.in_class_order(trained_classes, source)
    require_trained_as(source, classifier_description(config, manifest.class_names, manifest.is_multi_label))

    # Results, and what an interrupted test left of them.
    clips, crops, size = config.eval.clips, config.eval.crops, config.eval.compressed_size
    weights_digest = file_digest(weights) if world.is_main else ""
    partial = open_partial_result(folder / f"{name}.partial", config, manifest, weights_digest, world)

    def forward(views: Tensor) -> Tensor:  # (B, 3, T, H, W)
        if config.eval.single_frame:
            views = views[:, :, views.shape[2] // 2, None].expand_as(views)
        output = model(views, **config.eval.call)
        return torch.stack([output[classifier] for classifier in model.supervised], dim=1)  # (B, S, K)

    result = predict_views(
        forward,
        view_loader(config, manifest, clips, crops, world, centre_view=True, done=partial.finished),
        len(manifest),
        manifest.class_names,
        config.eval.batch_size,
        world.device,
        dtype,
        description=f"test {clips}x{crops} views, {config.runtime.precision}",
        classifiers=model.supervised,
        partial=partial,
    )
    if result is not None:
        predictions, failed = result
        facts = {
            "checkpoint": str(source),
            "digest": weights_digest,
            "step": read_description(source).get("step"),
            "precision": config.runtime.precision,
            "sampling": config.data.sampling,
            "missing_videos": manifest.num_missing,
            "broken_videos": failed,
            "compressed_size": size or getattr(model, "compressed_size", None),
        }
        if config.eval.single_frame:
            facts["single_frame"] = True
        if config.eval.keep is not None:
            facts["keep"] = str(config.eval.tokens.keep)
        save(replace(predictions, facts=facts), folder, name)
    world.barrier()
    partial.remove()  # on every machine


def open_partial_result(
    folder: Path, config: RunConfig, manifest: VideoManifest, weights_digest: str, world: World
) -> PartialResult:
    """The results of an interrupted test with the same weights, videos and settings; collective."""
    restored = None
    shared: list[Any] = [folder, []]
    if world.is_main:
        settings = identity(config, manifest, weights_digest, world)
        folder, about_others = unfinished_folder(folder, settings)
        restored, messages = restore(folder, settings, manifest.unit)
        print("".join(f"{line}\n" for line in about_others + messages), end="")
        shared = [folder, restored["video_index"].tolist() if restored else []]
    if world.size > 1:
        dist.broadcast_object_list(shared, src=0)
    folder, finished = shared
    return PartialResult(folder, config.eval.save_seconds, restored, frozenset(finished))


def identity(config: RunConfig, manifest: VideoManifest, weights_digest: str, world: World) -> dict[str, Any]:
    """Everything that the logits of a test depend on."""
    settings = to_dict(config)
    reading = ("workers", "decode_seconds", "max_pixels")  # change which videos fail, not the logits of the others
    data = {f"data.{key}": value for key, value in settings["data"].items() if key not in reading}
    views = {f"eval.{key}": v for key, v in settings["eval"].items() if key != "save_seconds"}
    videos = json.dumps([list(manifest.paths), manifest.labels.tolist()])
    return {
        "checkpoint": weights_digest,
        "videos": hashlib.blake2b(videos.encode(), digest_size=16).hexdigest(),
        "precision": config.runtime.precision,
        "device": world.device.type,
        **data,
        **views,
    }


def save(predictions: Predictions, folder: Path, name: str) -> None:
    """Write the logits of every view, the scores and the confusion matrix; print the scores."""
    summary = {**predictions.facts, **predictions.summary()}
    logits, labels, class_names = predictions.video_logits(), predictions.labels, predictions.class_names
    predictions.save(folder / f"{name}.npz")
    files = ".npz and .json"
    if predictions.is_multi_label:
        write_json(folder / f"{name}.json", summary | class_average_precisions(logits, labels, class_names))
    else:
        matrix = confusion_matrix(labels, logits.argmax(axis=1), len(class_names))
        write_json(folder / f"{name}.json", summary | class_scores(matrix, class_names))
        save_png(folder / f"{name}_confusion.png", confusion_figure(matrix, class_names))
        files = ".npz, .json and _confusion.png"
    for reason in predictions.facts["broken_videos"].values():
        print(f"FAILED, not in the scores: {reason}")
    for views, score in summary["views"].items():
        print(f"{views} views: {score_text(score, summary['videos'])}")
    if excluded := excluded_videos(predictions.facts):
        print(f"not in the scores: {excluded}")
    print(f"saved {folder / name}{files}")


def score_text(score: dict[str, Any], num_videos: int) -> str:
    """The scores of a view subset, see `Predictions.summary`, on a line."""
    if "mAP" in score:
        return f"mAP {score['mAP']:.2f} % (mean of {score['classes_with_videos']} classes, {num_videos} videos)"
    low, high = score["top1_interval"]
    line = f"top-1 {score['top1']:.2f} % ({score['top1_correct']} of {num_videos}; "
    line += f"95 % interval {low:.1f} to {high:.1f})"
    if "top5" in score:
        line += f", top-5 {score['top5']:.2f} % ({score['top5_correct']})"
    return line
