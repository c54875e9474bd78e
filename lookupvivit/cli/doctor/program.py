"""Check whether this machine can train and read videos, and print what to do where it cannot: one line per check."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from lookupvivit.cli.arguments import add_json_flag
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.doctor.report import FAIL, WARN, Result, run_check
from lookupvivit.cli.errors import exit_with_error, one_line_errors


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    from lookupvivit.cli.doctor.checks import all_checks
    from lookupvivit.config.loading import load_config

    if arguments.data and not arguments.data.is_dir():
        exit_with_error(f"--data: found {arguments.data}, which is not a folder; expected the folder of the videos")
    with one_line_errors("the checks have not started"):
        config = load_config(arguments.cfg, arguments.overrides) if arguments.cfg else None
    with tempfile.TemporaryDirectory(prefix="doctor_") as scratch:
        checks = all_checks(Path(scratch), arguments.output, arguments.data, config)
        width = max(len(check.name) for check in checks)
        results = []
        for check in checks:
            results.append(run_check(check))
            if not arguments.json:
                print(results[-1].line(width), flush=True)
    print_summary(results, arguments.json)
    sys.exit(1 if any(result.finding.mark == FAIL for result in results) else 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "folder for runs, whose disk is measured (default: runs)"
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="FOLDER", help=help)  # checked by a check
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of videos, whose reading speed is measured")
    help = "a YAML file or name; its clips are loaded, and the cores counted that its training needs"
    parser.add_argument("--cfg", metavar="FILE", help=help)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="with --cfg: set a key, such as data.root=..."
    )
    add_json_flag(parser)
    arguments = parser.parse_intermixed_args()
    if arguments.overrides and not arguments.cfg:
        parser.error(f"found {arguments.overrides[0]}, expected --cfg FILE as well")
    return arguments


def print_summary(results: list[Result], as_json: bool) -> None:
    """Print the counts, and all results if they are to be JSON."""
    marks = [result.finding.mark for result in results]
    failed, warned = marks.count(FAIL), marks.count(WARN)
    if as_json:
        report = {"checks": [result.to_dict() for result in results], "failed": failed, "warned": warned}
        print(json.dumps(report, indent=1))
        return
    seconds = sum(result.seconds for result in results)
    print(f"{len(results)} checks in {seconds:.0f} s: {failed} failed, {warned} with a warning")


if __name__ == "__main__":
    main()
