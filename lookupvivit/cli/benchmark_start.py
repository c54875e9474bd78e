"""Measure how long the tools take to start, and predict to process many short videos, and print a Markdown table."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_pipelines.io.processes import python_command
from lookupvivit.cli.arguments import add_run_option, positive_int
from lookupvivit.cli.benchmark_stream import predict_command
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.profiling.generated_videos import encode_texture
from lookupvivit.profiling.process_usage import Usage, measure_process

FRAMES = 16  # of a short video
WARMUP = 1  # runs of each command that are not counted


@ends_quietly()
def main() -> None:
    """Measure every command, each once per round in random order, and print medians with quartiles."""
    arguments = parse_args()
    import torch

    from lookupvivit.profiling.timing import time_calls

    usages: dict[str, list[Usage]] = {}
    with one_line_errors("nothing was written"), tempfile.TemporaryDirectory() as name:
        calls = []
        for label, command in commands_in(Path(name), arguments).items():
            usages[label] = []
            calls.append(partial(_measure, command, usages[label]))
        total = len(calls) * (WARMUP + arguments.rounds)
        with tqdm(total=total, desc="commands", unit="run", dynamic_ncols=True) as bar:
            time_calls(calls, torch.device("cpu"), range(arguments.rounds), WARMUP, after=bar.update)
    print(table({label: found[WARMUP:] for label, found in usages.items()}))


def _measure(command: list[str], usages: list[Usage]) -> None:
    usages.append(measure_process(command))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser, default="camera_motion")
    help = "short videos in the folder (default: 280)"
    parser.add_argument("--videos", type=positive_int, default=280, metavar="N", help=help)
    help = "runs of each command (default: 5)"
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N", help=help)
    return parser.parse_args()


def commands_in(folder: Path, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The commands by name; ``folder`` receives the videos that they read."""
    (folder / "short").mkdir()
    videos = [encode_texture(folder / "short" / f"{k}.mp4", FRAMES, seed=k) for k in range(arguments.videos)]
    run = ("--run", str(arguments.run or "camera_motion"))
    program = "from lookupvivit.cli.main import main; main()"
    return {
        "`lookupvivit --help`": python_command(program, "--help"),
        "`lookupvivit predict --help`": python_command(program, "predict", "--help"),
        "`predict`, one video": predict_command(str(videos[0]), *run),
        f"`predict`, {len(videos)} videos": predict_command(str(folder / "short"), *run),
        f"`predict --views 1x1`, {len(videos)} videos": predict_command(str(folder / "short"), *run, "--views", "1x1"),
    }


def table(usages: dict[str, list[Usage]]) -> str:
    """Seconds of each command, with quartiles, as Markdown."""
    import torch

    from lookupvivit.profiling.timing import Spread, describe_machine

    def cell(values: list[float]) -> str:
        spread = Spread.of(values)
        return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"

    rows = [describe_machine(torch.device("cpu")), "", "| command | s | CPU s |", "| --- | ---: | ---: |"]
    for label, own in usages.items():
        rows.append(f"| {label} | {cell([usage.elapsed for usage in own])} | {cell([usage.cpu for usage in own])} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
