"""Measure how fast videos become clips on this machine, and print a table.

python tools/benchmark_loader.py VIDEO [VIDEO ...] [--workers 0 1 2] [--copies FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from data_pipelines import loader_benchmark as benchmark
from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.preparation.scanning import copy_video
from data_pipelines.sampling import Sampling
from lookupvivit.cli.arguments import give_up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", help="video files, such as ten Kinetics clips")
    parser.add_argument("--frames", type=int, default=32, help="per clip (32)")
    parser.add_argument("--stride", type=int, default=2, help="frames from one to the next (2)")
    parser.add_argument("--rounds", type=int, default=10, help="clips per video and measurement (10)")
    parser.add_argument("--seconds", type=float, default=20, help="of each loader measurement (20)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader workers (0 1 2)")
    parser.add_argument("--backends", nargs="+", default=["auto", "decord", "pyav", "torchcodec"])
    arguments = parser.parse_args()
    for path in arguments.videos:
        if not os.path.isfile(path):
            raise DataError(f"{path}: no such video file")
    print(benchmark.as_markdown(measure(arguments)))


def measure(arguments: argparse.Namespace) -> list[benchmark.Measurement]:
    """Every line of the table."""
    sampling, videos, rounds = Sampling(arguments.frames, arguments.stride), arguments.videos, arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        copies = [str(Path(folder) / f"{number}.mp4") for number in range(len(videos))]
        for source, target in zip(videos, copies, strict=True):
            try:
                copy_video(source, target, short_side=256, keyframe_every=16, crf=20)
            except VideoDecodeError as error:
                raise DataError(f"{source}: {error}") from None
        before, after = (sum(map(os.path.getsize, files)) for files in (videos, copies))
        with benchmark.one_core():
            rows = [benchmark.decoding(videos, sampling, rounds, backend, 60) for backend in arguments.backends]
            rows.append(benchmark.decoding(videos, sampling, rounds, "auto", 0))
            rows += [benchmark.pytorchvideo_decoding(videos, sampling, rounds, name) for name in ("decord", "pyav")]
            copied = benchmark.decoding(copies, sampling, rounds, "auto", 60)
            size = f"short side 256, a key frame every 16, {after / before:.1f} times the bytes"
            rows.append(benchmark.Measurement("prepared copies: " + copied.what, copied.milliseconds, size))
            rows += benchmark.views(videos, sampling, rounds, clips=4, crops=3)
        for workers in arguments.workers:
            rows.append(benchmark.loading(videos, sampling, arguments.seconds, workers, "auto"))
            row = benchmark.loading(copies, sampling, arguments.seconds, workers, "auto")
            rows.append(benchmark.Measurement("prepared copies: " + row.what, row.milliseconds, row.note))
    return rows


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        give_up(error)
