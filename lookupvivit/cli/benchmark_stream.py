"""Measure predict on long generated videos, and the delay of Stream, on one core, and print Markdown tables."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.processes import python_command
from lookupvivit.cli.arguments import add_run_option, add_tokens_option, positive_int
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.profiling.generated_videos import FPS, HEIGHT, WIDTH, encode_texture, repeat
from lookupvivit.profiling.process_usage import Usage, measure_process

SECONDS = 60  # that are encoded; longer videos repeat them


@ends_quietly()
def main() -> None:
    """Measure and print both tables."""
    arguments = parse_args()
    use_one_core()
    with one_line_errors("nothing was written"), tempfile.TemporaryDirectory() as folder:
        minute = encode_texture(Path(folder) / "minute.mp4", SECONDS * FPS)
        print(f"{WIDTH}x{HEIGHT} pixels, {FPS} frames per second, H.264, one core\n")
        print("| video | predict | CPU time | times real time (CPU time) | peak memory | clips | segments |")
        print("| ---: " * 7 + "|")
        for minutes in arguments.minutes:
            video = repeat(minute, Path(folder) / "video.mp4", minutes)
            usage, report = measure_predict(video, arguments.run, Path(folder) / "report.json")
            rate = f"{60 * minutes / usage.elapsed:.0f} ({60 * minutes / usage.cpu:.0f})"
            numbers = f"{usage.peak / 1e6:.0f} MB | {report['views']} | {len(report['segments'])}"
            print(f"| {minutes} min | {usage.elapsed:.0f} s | {usage.cpu:.0f} s | {rate} | {numbers} |", flush=True)
        print(
            "\n| hop of Stream | patch embeddings | delay, median | 95 % | CPU time, median |\n" + "| ---: " * 5 + "|"
        )
        for row in measure_stream(minute, arguments):
            print(row, flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser)
    help = "durations of the videos (default: 6 60)"
    parser.add_argument("--minutes", type=positive_int, nargs="+", default=[6, 60], metavar="N", help=help)
    add_tokens_option(parser)
    return parser.parse_args()


def use_one_core() -> None:
    """Run this process and those that it starts on one core (Linux only)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure_predict(video: Path, run: Path, report: Path) -> tuple[Usage, dict[str, Any]]:
    """What ``predict`` used, and its report."""
    command = predict_command(str(video), "--run", str(run), "--json", str(report))
    return measure_process(command), json.loads(report.read_text(encoding="utf-8"))["videos"][0]


def predict_command(*arguments: str) -> list[str]:
    """The command line of ``lookupvivit predict``, on the CPU."""
    return python_command("from lookupvivit.cli.predict import main; main()", *arguments, "--device", "cpu")


def measure_stream(video: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Rows of a table: the time from a clip's last frame to its prediction, for several hops."""
    from data_pipelines.video.live import open_live
    from lookupvivit.evaluation.stream import Stream
    from lookupvivit.weights.files import load_classifier

    model = load_classifier(arguments.run)
    preprocess = Stream(model).preprocess
    clip_seconds = preprocess.sampling.clip_periods(Fraction(FPS)) / FPS
    for part in (1, 2, 4):
        stream = Stream(model, float(clip_seconds / part), **arguments.tokens.call)
        delays, arrived = list[tuple[float, float]](), (0.0, 0.0)

        def frames() -> Iterator[np.ndarray]:
            nonlocal arrived
            with open_live(str(video)) as live:
                for frame in live.frames:
                    arrived = time.perf_counter(), time.process_time()
                    yield frame

        for _ in stream(frames(), FPS):
            delays.append((time.perf_counter() - arrived[0], time.process_time() - arrived[1]))
        (elapsed, used) = zip(*delays[2:], strict=True)
        times = [statistics.median(elapsed), statistics.quantiles(elapsed, n=20)[-1], statistics.median(used)]
        shared = "shared" if part > 1 and stream.can_share else "each clip's own"
        columns = [f"{float(clip_seconds / part):.2f} s", shared, *(f"{1000 * seconds:.1f} ms" for seconds in times)]
        yield f"| {' | '.join(columns)} |"


if __name__ == "__main__":
    main()
