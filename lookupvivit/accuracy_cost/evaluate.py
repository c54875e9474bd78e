"""Accuracy against cost: one multi-resolution checkpoint at many compressed sizes, and individual ones beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.hashing import file_digest
from data_pipelines.io.progress import progress
from lookupvivit.accuracy_cost.figures import points_picture
from lookupvivit.accuracy_cost.record import Point, Record, cascade_line, save_csv, scores, table
from lookupvivit.config import ConfigError, RunConfig, require
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.predictions import Predictions
from lookupvivit.layers.compressed_init import Resample, require_within
from lookupvivit.models.base import Size
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.profiling.budget import default_sizes
from lookupvivit.profiling.flops import UncountedOperatorError, count_cost
from lookupvivit.profiling.timing import describe_machine, median_times
from lookupvivit.sizes import format_size
from lookupvivit.training import distributed
from lookupvivit.training.build import compute_dtype, require_trained_as
from lookupvivit.training.data import preprocess_from_config, read_manifest, view_loader
from lookupvivit.training.distributed import World
from lookupvivit.visualization.canvas import save_png
from lookupvivit.weights.files import load_classifier, read_description, weights_file


@dataclass(frozen=True)
class Request:
    """What is asked for besides the configuration.

    Attributes:
        run: the checkpoint whose curve it is, a run directory or a ``model.safetensors``.
        output: folder for the results.
        individuals: others, at their own size; with ``everywhere`` at all the sizes (Fig. 5b).
        sizes: compressed sizes; none means those of the run's multi-resolution training, else `default_sizes`.
        image_sizes: sides of the input; none means the configuration's (Fig. 1b).
        cascade: its two sizes; None means the cheapest and the dearest.
        batch, rounds: of the measurement of speed; batch None means ``eval.batch_size``.
    """

    run: str
    output: Path
    individuals: tuple[str, ...] = ()
    everywhere: bool = False
    sizes: tuple[Size, ...] = ()
    image_sizes: tuple[int, ...] = ()
    cascade: tuple[Size, Size] | None = None
    batch: int | None = None
    rounds: int = 25

    def __post_init__(self) -> None:
        for key in ("batch", "rounds"):
            value = getattr(self, key)
            require(value is None or value >= 1, f"--{key}", value, "at least 1")
        if self.cascade:
            right = not self.sizes or set(self.cascade) <= set(self.sizes)
            require(right, "--cascade", ",".join(map(format_size, self.cascade)), "two of --sizes")
            right = len(self.image_sizes) < 2
            require(right, "--cascade", ",".join(map(format_size, self.cascade)), "left out with several --image-sizes")


@dataclass(frozen=True)
class Checkpoint:
    """Weights on the device, what tells them from others, and what tells their architecture from others."""

    path: str
    name: str
    model: nn.Module
    digest: str
    architecture: str

    @property
    def resizable(self) -> bool:
        return isinstance(self.model, LookupViT) and isinstance(self.model.compress, Resample)

    @property
    def own_size(self) -> Size | None:
        return getattr(self.model, "compressed_size", None)


@dataclass(frozen=True)
class Case:
    """A point to be: a checkpoint at a size, what it costs, and all that its accuracy depends on."""

    checkpoint: Checkpoint
    size: Size | None
    image_size: int
    of: dict[str, Any]
    gflops: float
    parameters: int

    @property
    def key(self) -> tuple[str, Size | None, int]:
        return self.checkpoint.path, self.size, self.image_size

    @property
    def speed_key(self) -> tuple[str, Size | None, int]:
        return self.checkpoint.architecture, self.size, self.image_size

    @property
    def what(self) -> str:
        size = format_size(self.size) if self.size else "all tokens"
        return f"{self.checkpoint.path} at {size}, {self.image_size} pixels"

    def __call__(self, video: Tensor) -> Tensor:
        """Logits (B, K) of views (B, 3, T, H, W)."""
        call = {"compressed_size": self.size} if self.checkpoint.resizable else {}
        return self.checkpoint.model(video, **call).logits


def cost_accuracy(config: RunConfig, request: Request) -> None:
    """Score what is not scored yet, measure the speeds, and write JSON, CSV and picture."""
    views = f"{config.eval.clips}x{config.eval.crops}"
    for path in (request.run, *request.individuals):
        weights_file(path)  # a missing checkpoint is told before any data is touched
    world = distributed.start(config.runtime.threads)
    dtype = compute_dtype(config, world)
    manifest = read_manifest(config, "val", world)
    checkpoints = [
        _checkpoint(path, config, manifest, world.device, dtype)
        for path in dict.fromkeys((request.run, *request.individuals))
    ]
    cases = _cases(config, request, checkpoints, manifest)
    record = Record(request.output / f"{views}.json")
    missing = [case for case in cases if record.finished(case.key, case.of) is None]
    if world.is_main and len(missing) < len(cases):
        print(f"{record.file} has {len(cases) - len(missing)} of the {len(cases)} points already")
    world.barrier()  # rank 0 is about to write what the others have just looked for
    for image_size in dict.fromkeys(case.image_size for case in missing):
        together = [case for case in missing if case.image_size == image_size]
        _score(_at_image_size(config, image_size), manifest, together, record, world, dtype, views)
    distributed.stop()
    if not world.is_main:
        return
    points = [record.points[case.key] for case in cases]
    _measure(cases, points, config, request, world.device, dtype)
    cascade = _cascade(request, points, record)
    record.save(cascade=cascade)
    save_csv(record.file.with_suffix(".csv"), points, cascade)
    picture = points_picture(points, cascade, views, manifest.source)
    save_png(record.file.with_suffix(".png"), picture)
    print(table(points))
    if cascade:
        best = cascade["best"]
        print(
            f"cascade {cascade['small']} then {cascade['large']}: at best {best['top1']:.2f} %, passing "
            f"{100 * best['share']:.1f} % on (confidence below {best['threshold']:.4f}), "
            f"{best['gflops']:.3f} GFLOPs, {best['clips_per_second']:.1f} clips/s"
        )
    print(f"saved {record.file}, .csv and .png")


def _checkpoint(
    path: str, config: RunConfig, manifest: VideoManifest, device: torch.device, dtype: torch.dtype
) -> Checkpoint:
    """Load one; ConfigError where it was trained on other classes or clips than those of the configuration."""
    require_trained_as(
        path,
        {"class_names": list(manifest.class_names), "preprocessing": preprocess_from_config(config.data).to_dict()},
    )
    description = read_description(path)
    model = load_classifier(path).to(device, dtype)
    architecture = json.dumps([description["name"], description["overrides"]], sort_keys=True)
    return Checkpoint(path, description["name"], model, file_digest(weights_file(path)), architecture)


def _cases(
    config: RunConfig,
    request: Request,
    checkpoints: Sequence[Checkpoint],
    manifest: VideoManifest,
) -> list[Case]:
    """All that is asked for, each with its cost; ConfigError for what a model cannot do."""
    main = checkpoints[0]
    sizes = _sizes(config, request, main)
    lines = "".join(f"{p}\t{n}\n" for p, n in zip(manifest.paths, manifest.labels.tolist(), strict=True))
    videos = hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()[:16]
    cases = []
    for checkpoint in checkpoints:
        everywhere = checkpoint is main or (request.everywhere and checkpoint.resizable)
        own = [checkpoint.own_size]
        asked = list(dict.fromkeys([*sizes, *own])) if everywhere and checkpoint is not main else sizes
        for image_size, size in itertools.product(
            request.image_sizes or [config.data.crop], asked if everywhere else own
        ):
            data = _at_image_size(config, image_size).data
            of = {
                "weights": checkpoint.digest,
                "precision": config.runtime.precision,
                "videos": videos,
                "views": [config.eval.clips, config.eval.crops],
                "backend": data.backend,
                "preprocessing": preprocess_from_config(data).to_dict(),
            }
            of = json.loads(json.dumps(of))  # as it comes back from the file
            gflops, parameters = _cost(checkpoint, size, (data.frames, image_size, image_size))
            cases.append(Case(checkpoint, size, image_size, of, gflops, parameters))
    return cases


def _sizes(config: RunConfig, request: Request, main: Checkpoint) -> list[Size | None]:
    """The compressed sizes of the main checkpoint, from few tokens to many."""
    asked = request.sizes or request.cascade
    if not main.resizable:
        if asked:
            raise ConfigError(
                f"--sizes: found {', '.join(map(format_size, asked))}, must be left out for {main.path}, "
                f"{main.name}, whose compressed size is fixed or which has none"
            )
        return [main.own_size]
    trained = config.model.multi_resolution
    if request.sizes:
        found = list(request.sizes)
    elif trained:
        found = trained.sizes
    else:
        found = default_sizes(main.model)
    return sorted({*found, *(request.cascade or ())}, key=lambda size: (size[0], size[1] * size[2], size))


def _cost(checkpoint: Checkpoint, size: Size | None, input_size: Size) -> tuple[float, int]:
    """GFLOPs of a view, and parameters."""
    call = {"compressed_size": size} if checkpoint.resizable else {}
    try:
        if hasattr(checkpoint.model, "embedding"):
            grid = checkpoint.model.embedding.grid(input_size)  # inside a trace it would speak of tensors
            if size and size != checkpoint.own_size:
                require_within(size, grid)
        cost = count_cost(checkpoint.model, (1, 3, *input_size), **call)
    except UncountedOperatorError:
        raise
    except ValueError as error:
        shown = format_size(size) if size else "all tokens"
        raise ConfigError(f"{checkpoint.path} at {shown}, {input_size[1]} pixels: {error}") from None
    return cost.macs / 1e9, cost.parameters


def _at_image_size(config: RunConfig, side: int) -> RunConfig:
    """The configuration with crops of ``side`` pixels, out of frames that are larger in the same proportion."""
    short_side = round(config.data.short_side * side / config.data.crop)
    return config.replace(data=config.data.replace(crop=side, short_side=short_side))


def _score(
    config: RunConfig,
    manifest: VideoManifest,
    cases: Sequence[Case],
    record: Record,
    world: World,
    dtype: torch.dtype,
    views: str,
) -> None:
    """Run all cases of one image size on every video, which is decoded once for all of them, and keep the points."""
    classes = len(manifest.class_names)
    side_by_side = [f"{name} ({case.what})" for case in cases for name in manifest.class_names]
    scored = predict_views(
        lambda video: torch.cat([case(video) for case in cases], dim=1),
        view_loader(config, manifest, config.eval.clips, config.eval.crops, world),
        len(manifest),
        side_by_side,
        config.eval.batch_size,
        world.device,
        dtype,
        description=f"{len(cases)} points, {views} views of {config.data.crop} pixels, {config.runtime.precision}",
    )
    if scored is None:
        return
    everything, broken = scored
    for reason in broken.values():
        print(f"BROKEN, not in the scores: {reason}")
    for number, case in enumerate(cases):
        logits = everything.head_logits[..., number * classes : (number + 1) * classes]
        predictions = dataclasses.replace(everything, head_logits=logits, class_names=manifest.class_names)
        record.add(_point(case, predictions, len(broken), views), predictions)
    record.save()


def _point(case: Case, predictions: Predictions, broken: int, views: str) -> Point:
    checkpoint = case.checkpoint
    size = format_size(case.size) if case.size else "all"
    return Point(
        checkpoint.path,
        checkpoint.name,
        case.size,
        case.image_size,
        case.size == checkpoint.own_size,
        case.of,
        **scores(predictions, case.what),
        broken_videos=broken,
        gflops=case.gflops,
        parameters=case.parameters,
        logits=f"{views}/{checkpoint.digest}_{size}_{case.image_size}.npz",
    )


def _measure(
    cases: Sequence[Case],
    points: Sequence[Point],
    config: RunConfig,
    request: Request,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Views per second of every point, unless all were measured together before, in the same way.

    They are measured in turn in one go, because speeds of different hours do not compare; checkpoints of one
    architecture share the measurement.
    """
    batch = request.batch or config.eval.batch_size
    how = {
        "machine": describe_machine(device),
        "precision": config.runtime.precision,
        "batch": batch,
        "rounds": request.rounds,
    }
    before = [{key: value for key, value in (point.speed_of or {}).items() if key != "at"} for point in points]
    if all(told == how for told in before) and len({point.speed_of["at"] for point in points}) == 1:
        return
    distinct = {case.speed_key: case for case in cases}
    clips = {
        side: torch.rand(batch, 3, config.data.frames, side, side, device=device).to(dtype) * 2 - 1
        for side in {case.image_size for case in cases}
    }
    rounds = progress(range(request.rounds), unit="round", desc=f"speed of {len(distinct)} sizes, batches of {batch}")
    spent = median_times([_bound(case, clips[case.image_size]) for case in distinct.values()], device, rounds)
    seconds = dict(zip(distinct, spent, strict=True))
    how["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for case, point in zip(cases, points, strict=True):
        point.clips_per_second, point.speed_of = batch / seconds[case.speed_key], how


def _bound(case: Case, clip: Tensor) -> Callable[[], Tensor]:
    return lambda: case(clip)


def _cascade(request: Request, points: Sequence[Point], record: Record) -> dict[str, Any] | None:
    """The cascade of the main checkpoint's two sizes; None where it has one, or there are several image sizes."""
    mine = sorted((p for p in points if p.checkpoint == request.run), key=lambda point: point.gflops)
    if len(mine) < 2 or len(request.image_sizes) > 1:
        return None
    small, large = mine[0], mine[-1]
    if request.cascade:
        small, large = sorted((p for p in mine if p.compressed_size in request.cascade), key=lambda p: p.gflops)
    return cascade_line(record, small, large)
