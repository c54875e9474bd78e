"""Evaluate accuracy and cost of checkpoints at many sizes, reusing finished points of earlier calls.

`cost_accuracy` plans the points, runs the model at all missing ones on every video (decoded once per image size),
measures speeds on this machine, and writes JSON, CSV and a figure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.progress import progress
from lookupvivit.accuracy_cost.figures import points_figure
from lookupvivit.accuracy_cost.plan import Options, PlannedPoint, at_image_size, load_checkpoint, plan_points
from lookupvivit.accuracy_cost.record import Point, Record, scores
from lookupvivit.accuracy_cost.report import cascade_report, cascade_summary, frontier, save_csv, table
from lookupvivit.config import RunConfig, require
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.profiling.timing import describe_machine, median_times
from lookupvivit.sizes import Size
from lookupvivit.training import distributed
from lookupvivit.training.build import compute_dtype
from lookupvivit.training.data import view_loader
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import read_manifest
from lookupvivit.visualization.canvas import save_png
from lookupvivit.weights.files import weights_file


def cost_accuracy(config: RunConfig, options: Options) -> None:
    """Evaluate all points that are not finished, measure speeds, print a table, and write JSON, CSV and figure.

    Args:
        config: of the main checkpoint's run: the validation set, the preprocessing and the views.
        options: what to evaluate.

    Raises:
        ConfigError, WeightsError, PredictionsError, DataError: as the modules of this package.
    """
    require(not config.eval.single_frame, "eval.single_frame", True, "false: accuracies are those of whole clips")
    paths = list(dict.fromkeys((options.run, *options.individuals)))
    for path in paths:
        weights_file(path)  # raises for a missing checkpoint before any data is read
    world = distributed.start(config.runtime.threads)
    with distributed.exclusive(options.output / ".lock", "--output", world):
        _evaluate(config, options, paths, world)


def _evaluate(config: RunConfig, options: Options, paths: Sequence[str], world: World) -> None:
    dtype = compute_dtype(config, world)
    manifest = read_manifest(config, "val", world)
    manifest.require_one_label()
    checkpoints = [load_checkpoint(path, config, manifest, world.device, dtype) for path in paths]
    planned = plan_points(config, options, checkpoints, manifest)
    record = Record(options.output / f"{_views(config)}.json")
    missing = [point for point in planned if record.find(point.key, point.conditions) is None]
    if world.is_main and len(missing) < len(planned):
        print(f"{record.file} has {len(planned) - len(missing)} of the {len(planned)} points already")
    world.barrier()  # every rank has read the record before rank 0 writes it
    for image_size in dict.fromkeys(point.image_size for point in missing):
        same_input = [point for point in missing if point.image_size == image_size]
        _score(at_image_size(config, image_size), manifest, same_input, record, world, dtype)
    distributed.stop()
    if not world.is_main:
        return
    points = [record.points[point.key] for point in planned]
    _measure_speeds(planned, points, config, options, world.device, dtype)
    _report(points, record, options, checkpoints[0].own_size, _views(config), manifest)


def _views(config: RunConfig) -> str:
    """Clips and crops of the test, such as 4x3."""
    return f"{config.eval.clips}x{config.eval.crops}"


def _score(
    config: RunConfig,
    manifest: VideoManifest,
    planned: Sequence[PlannedPoint],
    record: Record,
    world: World,
    dtype: torch.dtype,
) -> None:
    """Run all points of one image size on every video, decoded once for all of them, and add them to the record."""
    num_classes = len(manifest.class_names)
    columns = [f"{name} ({point})" for point in planned for name in manifest.class_names]
    size = f"{_views(config)} views of {config.data.crop} pixels"
    results = predict_views(
        lambda video: torch.cat([point(video) for point in planned], dim=1),
        view_loader(config, manifest, config.eval.clips, config.eval.crops, world),
        len(manifest),
        columns,
        config.eval.batch_size,
        world.device,
        dtype,
        description=f"{len(planned)} points, {size}, {config.runtime.precision}",
    )
    if results is None:  # not rank 0
        return
    predictions, failed = results
    for reason in failed.values():
        print(f"FAILED, excluded from the scores: {reason}")
    for number, point in enumerate(planned):
        logits = predictions.logits[..., number * num_classes : (number + 1) * num_classes]
        own = dataclasses.replace(predictions, logits=logits, class_names=manifest.class_names)
        record.add(_finished_point(point, own, len(failed), _views(config)), own)
    record.save()


def _finished_point(planned: PlannedPoint, predictions: Predictions, num_failed: int, views: str) -> Point:
    checkpoint = planned.checkpoint
    size = (str(planned.tokens) or "all").replace("@", "_keep_").replace(":", "_").removeprefix("_")
    return Point(
        checkpoint=checkpoint.path,
        model=checkpoint.name,
        compressed_size=planned.tokens.compressed_size,
        image_size=planned.image_size,
        own_size=planned.tokens == checkpoint.own_tokens,
        conditions=planned.conditions,
        **scores(predictions, str(planned)),
        failed_videos=num_failed,
        gflops=planned.gflops,
        parameters=planned.parameters,
        logits_file=f"{views}/{checkpoint.digest}_{size}_{planned.image_size}.npz",
        keep=planned.tokens.keep,
    )


def _measure_speeds(
    planned: Sequence[PlannedPoint],
    points: Sequence[Point],
    config: RunConfig,
    options: Options,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Set the speeds of all points, unless an earlier call measured all of them together under these conditions.

    All points are timed in interleaved rounds, because speeds that were measured hours apart are not comparable.
    Checkpoints of one architecture share a measurement.
    """
    batch_size = options.batch_size or config.eval.batch_size
    conditions = {
        "machine": describe_machine(device),
        "precision": config.runtime.precision,
        "batch": batch_size,
        "rounds": options.rounds,
    }
    if _measured_together(points, conditions):
        return
    distinct = {point.speed_key: point for point in planned}
    clips = {
        side: torch.rand(batch_size, 3, config.data.frames, side, side, device=device).to(dtype) * 2 - 1
        for side in {point.image_size for point in planned}
    }
    calls = [_bind(point, clips[point.image_size]) for point in distinct.values()]
    description = f"speed of {len(distinct)} sizes, batches of {batch_size}"
    times = median_times(calls, device, progress(range(options.rounds), unit="round", desc=description))
    seconds = dict(zip(distinct, times, strict=True))
    conditions["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for plan, point in zip(planned, points, strict=True):
        point.clips_per_second = batch_size / seconds[plan.speed_key]
        point.speed_conditions = conditions


def _measured_together(points: Sequence[Point], conditions: dict[str, Any]) -> bool:
    """Whether all speeds come from one measurement under these conditions."""
    first = points[0].speed_conditions
    if first is None or {**first, "at": None} != {**conditions, "at": None}:
        return False
    return all(point.speed_conditions == first for point in points)


def _bind(point: PlannedPoint, clip: Tensor) -> Callable[[], Tensor]:
    return lambda: point(clip)


def _report(
    points: Sequence[Point],
    record: Record,
    options: Options,
    own_size: Size | None,
    views: str,
    manifest: VideoManifest,
) -> None:
    """Write JSON, CSV and figure, and print a table."""
    cascade = _cascade(points, record, options, own_size)
    best = [{"checkpoint": point.checkpoint, "tokens": point.size_name} for point in frontier(points)]
    record.save(cascade=cascade, frontier=best)
    save_csv(record.file.with_suffix(".csv"), points, cascade)
    figure = points_figure(points, cascade, views, manifest.source, manifest.unit)
    save_png(record.file.with_suffix(".png"), figure)
    print(table(points))
    if cascade:
        print(cascade_summary(cascade, manifest.unit))
    print(f"saved {record.file}, .csv and .png")


def _cascade(points: Sequence[Point], record: Record, options: Options, own_size: Size | None) -> dict[str, Any] | None:
    """The cascade of two sizes of the main checkpoint; None for a single size or several image sizes.

    A setting without a compressed size means the model's own.
    """
    candidates = [point for point in points if point.checkpoint == options.run]
    if len(candidates) < 2 or len(options.image_sizes) > 1:
        return None
    if options.cascade:
        chosen = [tokens._replace(compressed_size=tokens.compressed_size or own_size) for tokens in options.cascade]
        candidates = [point for point in candidates if point.tokens in chosen]
    by_cost = sorted(candidates, key=lambda point: point.gflops)
    return cascade_report(record, by_cost[0], by_cost[-1])
