"""Benchmark decoding and loading: backends, loader workers, prepared copies, test views, and pytorchvideo.

Every case reads the same videos, after a warm-up, and reports the median time and the mean CPU time. Cases without a
loader run on one core, like a loader worker: some libraries start as many threads as they find cores.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.datasets.clips import ClipDataset, MultiViewDataset
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.io.progress import progress
from data_pipelines.loader import TrainingOrder, train_loader
from data_pipelines.preprocess import Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.first_half import FirstHalf
from data_pipelines.transforms.train_transform import TrainTransform
from data_pipelines.video.decoding_process import decoding_process
from data_pipelines.video.reader import open_video

ReadFunction = Callable[[str, np.random.Generator], None]  # reads from the video at a path
BATCH_SIZE = 4


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        case: what was measured.
        milliseconds: median per clip, or per video if all its views are read; None if the case failed.
        note: further results, or the reason of the failure.
    """

    case: str
    milliseconds: float | None
    note: str = ""


def measure_decoding(
    videos: Sequence[str], sampling: Sampling, rounds: int, backend: str, timeout: float
) -> Measurement:
    """Decode random training clips.

    Args:
        rounds: clips per video.
        backend, timeout: see `data_pipelines.video.reader.open_video`.
    """

    def read(path: str, rng: np.random.Generator) -> None:
        with open_video(path, backend, timeout) as reader:
            reader.read(sampling.training_clip(reader.num_frames, reader.fps, rng))

    process = "in a decoding process" if timeout else "in this process"
    return _measure(f"random clip, {backend}, {process}", videos, rounds, read)


def measure_pytorchvideo(videos: Sequence[str], sampling: Sampling, rounds: int, decoder: str) -> Measurement:
    """Decode random clips of the same duration with pytorchvideo's LabeledVideoDataset, then apply the stride."""
    from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler

    times: list[float] = []

    def read(path: str, rng: np.random.Generator) -> None:
        with open_video(path) as reader:  # not timed: pytorchvideo needs the duration in seconds
            duration = Fraction(sampling.frames * sampling.stride) / reader.fps
        start = time.perf_counter()
        dataset = LabeledVideoDataset(
            [(path, {"label": 0})], make_clip_sampler("random", float(duration)), decode_audio=False, decoder=decoder
        )
        next(iter(dataset))["video"][:, :: sampling.stride]
        times.append(time.perf_counter() - start)

    case = f"random clip, pytorchvideo LabeledVideoDataset, {decoder}"
    measurement = _measure(case, videos, rounds, read)
    if measurement.milliseconds is None:
        return measurement
    return Measurement(case, 1000 * statistics.median(times))


def measure_views(
    videos: Sequence[str], sampling: Sampling, rounds: int, num_clips: int, num_crops: int
) -> list[Measurement]:
    """Read the frames of all test views: from one decode, from one decode per view, from the whole video per view."""
    num_views = num_clips * num_crops

    def decode_once(path: str, rng: np.random.Generator) -> None:
        with open_video(path) as reader:
            reader.read(sampling.test_clips(reader.num_frames, reader.fps, num_clips).reshape(-1))

    def decode_per_view(path: str, rng: np.random.Generator) -> None:
        for view in range(num_views):
            with open_video(path) as reader:
                reader.read(sampling.test_clips(reader.num_frames, reader.fps, num_clips)[view // num_crops])

    def decode_all_per_view(path: str, rng: np.random.Generator) -> None:
        for _ in range(num_views):
            with open_video(path) as reader:
                reader.read(np.arange(reader.num_frames))

    manifest = _manifest(videos)
    views = MultiViewDataset(manifest, Preprocess(sampling, 256, 224), num_clips, num_crops)

    def decode_once_and_crop(path: str, rng: np.random.Generator) -> None:
        views[videos.index(path)]

    name = f"{num_clips}x{num_crops} views of a video"
    return [
        _measure(f"{name}, one decode", videos, rounds, decode_once),
        _measure(f"{name}, one decode per view", videos, max(1, rounds // 3), decode_per_view),
        _measure(f"{name}, the whole video per view", videos, 1, decode_all_per_view),
        _measure(f"{name}, one decode, resized and cropped", videos, rounds, decode_once_and_crop),
    ]


def measure_loader(
    videos: Sequence[str], sampling: Sampling, duration: float, workers: int, backend: str, on_device: bool = False
) -> Measurement:
    """Load training clips with the augmentation of Kinetics-400; also reports CPU time and the memory of one worker.

    On a machine with other load, the CPU time of a clip is the better measure.

    Args:
        duration: seconds of the measurement.
        workers: number of loader workers; 0 loads in this process.
        on_device: leave the second half of the augmentation to the training device, where it is not measured.
    """
    whole = TrainTransform(224, 256, scale_jitter=(0.9, 1.33), horizontal_flip=0.5, color_jitter=0.8, grayscale=0.1)
    transform = FirstHalf(whole) if on_device else whole
    manifest = _manifest(videos, repeats=BATCH_SIZE)
    loader = train_loader(
        ClipDataset(manifest, sampling, transform, seed=0, backend=backend),
        TrainingOrder(len(manifest), BATCH_SIZE, seed=0),
        start_step=0,
        end_step=10**6,
        rank=0,
        world_size=1,
        micro_batch=BATCH_SIZE,
        accumulation=1,
        workers=workers,
    )
    batches = iter(loader)
    for _ in range(max(2, 2 * workers)):  # start with full prefetch queues
        next(batches)
    num_clips, start, cpu_start = 0, time.perf_counter(), cpu_seconds(os.getpid())
    while time.perf_counter() - start < duration:
        num_clips += len(next(batches)["video"])
    elapsed, cpu = time.perf_counter() - start, cpu_seconds(os.getpid()) - cpu_start
    memory = resident_megabytes(_first_worker(batches))
    augmentation = "K400 augmentation without colour changes" if on_device else "K400 augmentation"
    case = f"loader, {augmentation}, {backend}, {workers} worker{'' if workers == 1 else 's'}"
    note = (
        f"{num_clips / elapsed:.1f} clips/s, {1000 * cpu / num_clips:.0f} ms of CPU time per clip, "
        f"{memory:.0f} MB per worker"
    )
    return Measurement(case, 1000 * elapsed / num_clips, note)


def _first_worker(batches: Any) -> int:
    """Return the process id of a loader's first worker, or of this process if it has none."""
    workers = getattr(batches, "_workers", None)
    return workers[0].pid if workers else os.getpid()


def resident_megabytes(process: int) -> float:
    """Return the memory of a process and its children, shared pages in proportion (Linux only; elsewhere NaN)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return float("nan")
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024 + sum(resident_megabytes(int(child)) for child in children)


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process and its children, also of ended ones, user and system (Linux; elsewhere NaN)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return float("nan")
    ticks = sum(map(int, fields[11:15]))  # user, system, and both of the children that have ended
    of_children = [cpu_seconds(int(child)) for child in children]
    return ticks / os.sysconf("SC_CLK_TCK") + sum(seconds for seconds in of_children if not math.isnan(seconds))


def _manifest(videos: Sequence[str], repeats: int = 1) -> VideoManifest:
    """Return the videos as a dataset. Repetitions get another path ("./", "././"), because paths must be unique."""
    paths = []
    for repetition in range(repeats):
        for path in videos:
            folder, name = os.path.split(path)
            paths.append(os.path.join(folder, "./" * repetition, name))
    return VideoManifest(tuple(paths), np.zeros(len(paths), dtype=np.int64), ("0",), "benchmark")


@contextmanager
def single_core() -> Iterator[None]:
    """Run this process and its decoding process on one core (Linux only)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    decoding_process().kill()  # the next one inherits the core
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        decoding_process().kill()


def _measure(case: str, videos: Sequence[str], rounds: int, read: ReadFunction) -> Measurement:
    """Return the median time of ``read``, which is called ``rounds`` times per video after one call to warm up."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        for path in videos:
            read(path, np.random.default_rng(0))
        cpu_start = cpu_seconds(os.getpid())
        for seed in progress(range(rounds), file=sys.stderr, desc=case, leave=False):
            for path in videos:
                start = time.perf_counter()
                read(path, np.random.default_rng(seed))
                times.append(time.perf_counter() - start)
    except (VideoDecodeError, ImportError) as error:
        return Measurement(case, None, str(error))
    finally:
        torch.set_num_threads(num_threads)
    cpu = 1000 * (cpu_seconds(os.getpid()) - cpu_start) / len(times)
    return Measurement(case, 1000 * statistics.median(times), f"{cpu:.0f} ms of CPU time")


def markdown_table(measurements: Sequence[Measurement]) -> str:
    """Format measurements as a Markdown table."""
    lines = ["| case | ms | note |", "|---|---|---|"]
    for row in measurements:
        milliseconds = "failed" if row.milliseconds is None else f"{row.milliseconds:.0f}"
        lines.append(f"| {row.case} | {milliseconds} | {row.note} |")
    return "\n".join(lines)
