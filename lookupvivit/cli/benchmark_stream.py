"""Measure predict on long generated videos, and the delay of Stream, on one core, and print Markdown tables."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.io.processes import python_command
from lookupvivit.cli.arguments import add_run_option, add_tokens_option, positive_int
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors

WIDTH, HEIGHT, FPS = 320, 240, 25
SECONDS = 60  # that are encoded; longer videos repeat them
POLL_SECONDS = 0.1


@ends_quietly()
def main() -> None:
    """Measure and print both tables."""
    arguments = parse_args()
    with one_line_errors("nothing was written"), one_core(), tempfile.TemporaryDirectory() as folder:
        minute = encode_minute(Path(folder) / "minute.mp4")
        print(f"{WIDTH}x{HEIGHT} pixels, {FPS} frames per second, H.264, one core\n")
        print("| video | predict | CPU time | times real time (CPU time) | peak memory | clips | segments |")
        print("| ---: " * 7 + "|")
        for minutes in arguments.minutes:
            video = repeat(minute, Path(folder) / "video.mp4", minutes)
            seconds, usage, report = measure_predict(video, arguments.run, Path(folder) / "report.json")
            rate = f"{60 * minutes / seconds:.0f} ({60 * minutes / usage.seconds:.0f})"
            numbers = f"{usage.peak / 1e6:.0f} MB | {report['views']} | {len(report['segments'])}"
            print(f"| {minutes} min | {seconds:.0f} s | {usage.seconds:.0f} s | {rate} | {numbers} |", flush=True)
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


@contextmanager
def one_core() -> Iterator[None]:
    """Run this process and those that it starts on one core (Linux only)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    yield


def encode_minute(path: Path) -> Path:
    """Write a minute of a texture that moves in another direction every two seconds."""
    import av

    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    directions, top, left = rng.integers(-3, 4, (SECONDS // 2, 2)), 0, 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(SECONDS * FPS):
            top, left = (top, left) + directions[index // (2 * FPS)]
            image = np.roll(texture, (top, left), axis=(0, 1))[:HEIGHT, :WIDTH]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    return path


def repeat(source: Path, path: Path, times: int) -> Path:
    """Write the packets of a video several times, without encoding them again."""
    import av

    with av.open(str(path), "w") as target:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.dts is None:  # marks the end
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    target.mux(packet)
                shift += video.duration
    return path


class Usage(NamedTuple):
    """What a process and its children have used so far: bytes at the peak of each, and seconds of CPU time."""

    peak: int = 0
    seconds: float = 0.0


def measure_predict(video: Path, run: Path, report: Path) -> tuple[float, Usage, dict[str, Any]]:
    """Seconds of ``predict`` with the start of its process, what it and its decoding process used, and its report."""
    start, usage = time.monotonic(), dict[int, Usage]()
    command = python_command("from lookupvivit.cli.predict import main; main()")
    command += [str(video), "--run", str(run), "--json", str(report), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in [process.pid, *_children(process.pid)]:
                with suppress(OSError, ValueError):  # it has ended
                    now, before = _usage(pid), usage.get(pid, Usage())
                    usage[pid] = Usage(max(now.peak, before.peak), max(now.seconds, before.seconds))
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise OSError(f"{run}: predict failed")
    total = Usage(sum(used.peak for used in usage.values()), sum(used.seconds for used in usage.values()))
    return time.monotonic() - start, total, json.loads(report.read_text(encoding="utf-8"))["videos"][0]


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


def _children(pid: int) -> list[int]:
    """Direct children of a process, of any of its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return found


def _usage(pid: int) -> Usage:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # from the third one on
    return Usage(peak, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))  # utime, stime


if __name__ == "__main__":
    main()
