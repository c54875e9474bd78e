"""How fast videos become clips here: backends, workers, prepared copies, one decode for all views, and pytorchvideo.

Every measurement reads the same videos, after a warm-up, and the median is told. What is decoded without a loader has
one core to itself, as a loader's worker has: some libraries start threads wherever they find cores.
"""

from __future__ import annotations

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
from data_pipelines.transforms.clip_transforms import TrainTransform
from data_pipelines.video.decoding_process import decoding_process
from data_pipelines.video.reader import open_video


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        what: group and case.
        milliseconds: median per clip, or per video where all its views are read; None where it failed.
        note: what else there is to say, such as why it failed.
    """

    what: str
    milliseconds: float | None
    note: str = ""


def decoding(videos: Sequence[str], sampling: Sampling, rounds: int, backend: str, seconds: float) -> Measurement:
    """Random training clips, decoded only."""

    def read(path: str, rng: np.random.Generator) -> None:
        with open_video(path, backend, seconds) as reader:
            reader.read(sampling.training_clip(reader.num_frames, reader.fps, rng))

    where = "in a decoding process" if seconds else "in this process"
    return _median(f"random clip, {backend}, {where}", videos, rounds, read)


def pytorchvideo_decoding(videos: Sequence[str], sampling: Sampling, rounds: int, decoder: str) -> Measurement:
    """Random clips of the same duration by pytorchvideo's LabeledVideoDataset, its frames thinned out by stride."""
    from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler

    def read(path: str, rng: np.random.Generator) -> None:
        with open_video(path) as reader:  # its clips are in seconds: as many frames as ours span
            duration = Fraction(sampling.frames * sampling.stride) / reader.fps
        begun = time.perf_counter()
        dataset = LabeledVideoDataset(
            [(path, {"label": 0})], make_clip_sampler("random", float(duration)), decode_audio=False, decoder=decoder
        )
        next(iter(dataset))["video"][:, :: sampling.stride]
        times.append(time.perf_counter() - begun)

    times: list[float] = []
    name = f"random clip, pytorchvideo LabeledVideoDataset, {decoder}"
    found = _median(name, videos, rounds, read)
    return found if found.milliseconds is None else Measurement(name, 1000 * statistics.median(times))


def views(videos: Sequence[str], sampling: Sampling, rounds: int, clips: int, crops: int) -> list[Measurement]:
    """The frames of all test views of a video from one decode, from a decode per view, and by decoding all of it."""

    def together(path: str, rng: np.random.Generator) -> None:
        with open_video(path) as reader:
            reader.read(sampling.test_clips(reader.num_frames, reader.fps, clips).reshape(-1))

    def apart(path: str, rng: np.random.Generator) -> None:
        for view in range(clips * crops):
            with open_video(path) as reader:
                reader.read(sampling.test_clips(reader.num_frames, reader.fps, clips)[view // crops])

    def whole(path: str, rng: np.random.Generator) -> None:
        for _ in range(clips * crops):
            with open_video(path) as reader:
                reader.read(np.arange(reader.num_frames))

    def prepared(path: str, rng: np.random.Generator) -> None:
        MultiViewDataset(manifest, Preprocess(sampling, 256, 224), clips, crops)[videos.index(path)]

    manifest, name = _manifest(videos), f"{clips}x{crops} views of a video"
    return [
        _median(f"{name}, one decode", videos, rounds, together),
        _median(f"{name}, a decode per view", videos, max(1, rounds // 3), apart),
        _median(f"{name}, the whole video per view", videos, 1, whole),
        _median(f"{name}, one decode, resized and cropped", videos, rounds, prepared),
    ]


def loading(videos: Sequence[str], sampling: Sampling, seconds: float, workers: int, backend: str) -> Measurement:
    """Augmented training clips (K400 recipe) out of the loader, for a while; memory of one worker's processes."""
    jitter = TrainTransform(224, 256, scale_jitter=(0.9, 1.33), horizontal_flip=0.5, color_jitter=0.8, grayscale=0.1)
    copies = _manifest(videos, times=4)
    order = TrainingOrder(len(copies), 4, seed=0)
    dataset = ClipDataset(copies, sampling, jitter, seed=0, backend=backend)
    loader = train_loader(dataset, order, 0, 10**6, 0, 1, 4, 1, workers)
    batches = iter(loader)
    for _ in range(max(2, 2 * workers)):  # the loader's own queue is full when the clock starts
        next(batches)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        count += len(next(batches)["video"])
    spent = time.perf_counter() - begun
    memory = resident(_worker_of(batches))
    what = f"loader, K400 augmentation, {backend}, {workers} worker{'' if workers == 1 else 's'}"
    return Measurement(what, 1000 * spent / count, f"{count / spent:.1f} clips/s, {memory:.0f} MB per worker")


def _worker_of(batches: Any) -> int:
    workers = getattr(batches, "_workers", None)
    return workers[0].pid if workers else os.getpid()


def resident(process: int) -> float:
    """Megabytes of a process and its children, shared pages by their share (Linux; elsewhere not a number)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return float("nan")
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024 + sum(resident(int(child)) for child in children)


def _manifest(videos: Sequence[str], times: int = 1) -> VideoManifest:
    """The videos as a data set; more than once by way of "./", as a manifest names each file only once."""
    paths = [
        os.path.join(os.path.dirname(path), "./" * i, os.path.basename(path)) for i in range(times) for path in videos
    ]
    return VideoManifest(tuple(paths), np.zeros(len(paths), dtype=np.int64), ("0",), "benchmark")


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and the decoding process that it starts, on one core (Linux)."""
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


def _median(
    what: str, videos: Sequence[str], rounds: int, read: Callable[[str, np.random.Generator], None]
) -> Measurement:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        for path in videos:
            read(path, np.random.default_rng(0))
        for number in progress(range(rounds), file=sys.stderr, desc=what, leave=False):
            for path in videos:
                begun = time.perf_counter()
                read(path, np.random.default_rng(number))
                times.append(time.perf_counter() - begun)
    except (VideoDecodeError, ImportError) as error:
        return Measurement(what, None, str(error))
    finally:
        torch.set_num_threads(threads)
    return Measurement(what, 1000 * statistics.median(times))


def as_markdown(measurements: Sequence[Measurement]) -> str:
    """A table."""
    lines = ["| what | ms | |", "|---|---|---|"]
    for row in measurements:
        time_taken = "failed" if row.milliseconds is None else f"{row.milliseconds:.0f}"
        lines.append(f"| {row.what} | {time_taken} | {row.note} |")
    return "\n".join(lines)
