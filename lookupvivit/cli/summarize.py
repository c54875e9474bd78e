"""Print what a run directory contains: the model and its cost, accuracies, and where its figures are."""

import argparse
import sys
from pathlib import Path

from lookupvivit.cli.arguments import add_run_option
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.errors import UserError


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    from lookupvivit.evaluation.run_summary import summarize_run

    try:
        print(summarize_run(arguments.run))
    except UserError as error:
        sys.exit(f"error: {error}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser, required=False)
    parser.add_argument("old_run", nargs="?", type=Path, help=argparse.SUPPRESS)  # the form of version 0.1
    arguments = parser.parse_args()
    arguments.run = arguments.run or arguments.old_run
    if arguments.run is None:
        parser.error("argument --run: expected a run directory")
    return arguments


if __name__ == "__main__":
    main()
