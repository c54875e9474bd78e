"""Test camera motion models: on rendered videos, on real footage, and on the user's own labelled videos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.atomic import write_json, write_text
from data_pipelines.io.lock import locked
from lookupvivit.cli.arguments import (
    add_device_option,
    add_output_option,
    positive_int,
    token_sizes,
    view_counts,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookupvivit.camera_motion.evaluation import Result
    from lookupvivit.camera_motion.video_sets import VideoSet

DEFAULT_RUN, DEFAULT_OUTPUT = "camera_motion", "camera_motion_test"


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with one_line_errors("rendered videos are kept"), locked(arguments.output / ".lock"):
        test(arguments)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = f"a run or the name of a shipped model; can be repeated (default: {DEFAULT_RUN})"
    parser.add_argument("--run", action="append", metavar="RUN", help=help)
    help = "validation videos of a camera_motion dataset instead of newly rendered ones; can be repeated"
    parser.add_argument("--dataset", action="append", default=[], type=Path, metavar="FOLDER", help=help)
    help = "labelled videos instead of rendered ones: CSV with the columns path, start, end, class; can be repeated"
    parser.add_argument("--labels", action="append", default=[], type=Path, metavar="FILE", help=help)
    help = "number of videos to render per set, a multiple of 10 (default: 500)"
    parser.add_argument("--videos", type=_multiple_of_ten, default=500, metavar="N", help=help)
    help = "compressed sizes (default: the model's own)"
    parser.add_argument("--sizes", type=token_sizes, default=(), metavar="TxHxW,...", help=help)
    help = "views of each video whose logits are averaged (default: 1x1)"
    parser.add_argument("--views", type=view_counts, default=(1, 1), metavar="CLIPSxCROPS", help=help)
    add_output_option(parser, "the rendered videos and the results", default=DEFAULT_OUTPUT)
    add_device_option(parser)
    arguments = parser.parse_args()
    arguments.run = arguments.run or [DEFAULT_RUN]
    return arguments


def _multiple_of_ten(text: str) -> int:
    count = positive_int(text)
    if count % 10:
        raise argparse.ArgumentTypeError(f"found {text}, expected a multiple of 10")
    return count


def test(arguments: argparse.Namespace) -> None:
    """Evaluate every model on every set; print the tables, and write them with their data and a figure."""
    from lookupvivit.camera_motion.evaluation import evaluate
    from lookupvivit.camera_motion.report import to_figure, to_markdown
    from lookupvivit.profiling.timing import describe_machine
    from lookupvivit.visualization.canvas import save_png
    from lookupvivit.weights.files import load_classifier

    models = {run: load_classifier(run).to(arguments.device) for run in arguments.run}
    sizes = arguments.sizes or (None,)
    results: list[Result] = []
    for videos in video_sets(arguments):
        for run, model in models.items():
            results += evaluate(model, run, videos, sizes, arguments.views, arguments.device)
    machine, output = describe_machine(arguments.device), arguments.output
    views = "{}x{}".format(*arguments.views)
    report = {"views": views, "machine": machine, "results": [result.to_dict() for result in results]}
    table = to_markdown(results, f"{views} views. {machine}")
    write_json(output / f"{views}.json", report)
    write_text(output / f"{views}.md", table)
    save_png(output / f"{views}_confusion.png", to_figure(results))
    print(f"{table}\nsaved {output}/{views}.json, {views}.md and {views}_confusion.png")


def video_sets(arguments: argparse.Namespace) -> Iterator[VideoSet]:
    """The sets that the options select."""
    from lookupvivit.camera_motion import video_sets as sets

    yield from map(sets.dataset, arguments.dataset)
    yield from map(sets.labelled_set, arguments.labels)
    if not (arguments.dataset or arguments.labels):
        count = arguments.videos  # part of the folders' names, because each is only written once
        yield sets.first_renderer_set(arguments.output / f"first_renderer_{count}", count)
        yield sets.second_renderer_set(arguments.output / f"second_renderer_{count}", count)
        yield sets.virtual_camera_set(arguments.output / f"virtual_camera_{count}", count)


if __name__ == "__main__":
    main()
