"""Measure how fast this machine reads training clips and test views from videos, and print a Markdown table."""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.sampling import Sampling
from data_pipelines.video.reader import BACKENDS, TIMEOUT
from lookupvivit.cli.arguments import non_negative_int, positive_int
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import exit_with_error

if TYPE_CHECKING:
    from data_pipelines.loader_benchmark import Measurement


SHORT_SIDE, KEYFRAME_EVERY, CRF = 256, 16, 20  # of the copies


@ends_quietly()
def main() -> None:
    """Measure and print every case."""
    arguments = parse_args()
    try:
        measure(arguments)
    except DataError as error:
        exit_with_error(error)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a video file; about ten are enough")
    parser.add_argument("--frames", type=positive_int, default=32, metavar="N", help="frames per clip (default: 32)")
    parser.add_argument("--stride", type=positive_int, default=2, metavar="N", help="of the clip's frames (default: 2)")
    parser.add_argument(
        "--rounds", type=positive_int, default=10, metavar="N", help="clips per video and case (default: 10)"
    )
    parser.add_argument("--seconds", type=float, default=20, help="duration of each loader measurement (default: 20)")
    help = "loader workers (default: 0 1 2)"
    parser.add_argument("--workers", type=non_negative_int, nargs="+", default=[0, 1, 2], metavar="N", help=help)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS, help="default: all")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> None:
    from data_pipelines import loader_benchmark as benchmark

    for path in arguments.videos:
        if not os.path.isfile(path):
            raise DataError(f"{path}: no such video file")
    print(benchmark.markdown_table(run_benchmark(arguments)))


def run_benchmark(arguments: argparse.Namespace) -> list[Measurement]:
    """Return the rows of the table."""
    from data_pipelines import loader_benchmark as benchmark

    sampling, videos, rounds = Sampling(arguments.frames, arguments.stride), arguments.videos, arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        copies, growth = make_copies(videos, Path(folder))
        with benchmark.single_core():
            rows = [benchmark.measure_decoding(videos, sampling, rounds, name, TIMEOUT) for name in arguments.backends]
            rows.append(benchmark.measure_decoding(videos, sampling, rounds, "auto", 0))
            rows += [benchmark.measure_pytorchvideo(videos, sampling, rounds, name) for name in ("decord", "pyav")]
            row = of_copies(benchmark.measure_decoding(copies, sampling, rounds, "auto", TIMEOUT))
            note = f"short side {SHORT_SIDE}, a key frame every {KEYFRAME_EVERY} frames, {growth:.1f} times the bytes"
            rows.append(replace(row, note=f"{row.note}; {note}" if row.milliseconds is not None else row.note))
            rows += benchmark.measure_views(videos, sampling, rounds, num_clips=4, num_crops=3)
        for workers, on_device in itertools.product(arguments.workers, (False, True)):
            settings = (sampling, arguments.seconds, workers, "auto", on_device)
            rows.append(benchmark.measure_loader(videos, *settings))
            rows.append(of_copies(benchmark.measure_loader(copies, *settings)))
    return rows


def make_copies(videos: Sequence[str], folder: Path) -> tuple[list[str], float]:
    """Write copies as tools/prepare_dataset.py does; return their paths and their size relative to the originals."""
    from data_pipelines.preparation.copies import copy_video

    copies = [str(folder / f"{number}.mp4") for number in range(len(videos))]
    for source, target in zip(videos, copies, strict=True):
        try:
            copy_video(source, target, short_side=SHORT_SIDE, keyframe_every=KEYFRAME_EVERY, crf=CRF)
        except VideoDecodeError as error:
            raise DataError(f"{source}: {error}") from None
    return copies, sum(map(os.path.getsize, copies)) / sum(map(os.path.getsize, videos))


def of_copies(row: Measurement) -> Measurement:
    return replace(row, case=f"prepared copies: {row.case}")


if __name__ == "__main__":
    main()
