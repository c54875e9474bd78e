"""Measure how much the compressed tokens attend to moving objects, relative to uniform attention."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.atomic import write_json, write_text
from data_pipelines.io.progress import progress
from lookupvivit.cli.arguments import add_output_option, add_run_option, positive_int
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.errors import UserError

if TYPE_CHECKING:
    from lookupvivit.evidence.object_clips import Pair
    from lookupvivit.models.base import Model

DEFAULT_RUN, DEFAULT_OUTPUT = "camera_motion", "object_attention"


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("nothing was written"):
        run(arguments)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser, required=False, default=DEFAULT_RUN)
    help = "number of clips to render (default: 200)"
    parser.add_argument("--clips", type=positive_int, default=200, metavar="N", help=help)
    help = "recorded videos instead of rendered ones: CSV with the columns path, mask"
    parser.add_argument("--masks", type=Path, metavar="FILE", help=help)
    help = "number of models with random weights to compare with (default: 5)"
    parser.add_argument("--untrained", type=positive_int, default=5, metavar="N", help=help)
    add_output_option(parser, "the results", default=DEFAULT_OUTPUT)
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write it with its data and a figure."""
    import torch

    import lookupvivit
    from lookupvivit.evidence.object_attention import measure, untrained_like
    from lookupvivit.evidence.object_report import to_figure, to_markdown
    from lookupvivit.profiling.timing import describe_machine
    from lookupvivit.visualization.attention_maps import check_selection
    from lookupvivit.visualization.canvas import save_png

    model = lookupvivit.load_model(arguments.run or DEFAULT_RUN)
    try:
        check_selection(model, [0])
    except ValueError as error:
        raise UserError(str(error)) from None
    groups = {"trained": [model], "untrained": untrained_like(model, arguments.untrained)}
    pairs = find_pairs(arguments, model)
    result = measure(groups, progress(pairs, desc="attention", unit="clip"))
    machine, output = describe_machine(torch.device("cpu")), arguments.output
    table = to_markdown(result, machine)
    write_json(output / "object_attention.json", {**result.to_dict(), "machine": machine})
    write_text(output / "object_attention.md", table)
    save_png(output / "object_attention.png", to_figure(result, "Attention of the compressed tokens to the object"))
    print(f"{table}\nsaved {output}/object_attention.json, object_attention.md and object_attention.png")


def find_pairs(arguments: argparse.Namespace, model: Model) -> list[Pair]:
    """The clips that the options select.

    Raises:
        UserError: no recorded clip is usable.
    """
    import lookupvivit
    from lookupvivit.evidence.object_clips import recorded_pairs, rendered_pairs

    preprocess = lookupvivit.preprocess_of(model)
    if arguments.masks is None:
        pairs = rendered_pairs(preprocess, arguments.clips)
        return list(progress(pairs, desc="rendering", total=arguments.clips, unit="clip"))
    found = list(recorded_pairs(preprocess, arguments.masks))
    usable = [pair for pair in found if pair is not None]
    if not usable:
        raise UserError(f"{arguments.masks}: found {len(found)} videos, expected one with an object in 2 to 50 % of it")
    if len(usable) < len(found):
        skipped = len(found) - len(usable)
        print(f"skipped {skipped} of {len(found)} videos, whose object covers less than 2 % or more than half of them")
    return usable


if __name__ == "__main__":
    main()
