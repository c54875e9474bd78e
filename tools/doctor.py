"""Tell whether this machine can train and read videos, and what to do where it cannot: a line per check.

    python tools/doctor.py
    python tools/doctor.py --output /scratch/runs --data /data/k400     the disks that a run will use

Nothing is changed or deleted; what is written goes into temporary files. Exit status 1: something failed; 2: a mistake
in the command.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from lookupvivit.cli.arguments import give_up
from lookupvivit.cli.doctor.checks import checks
from lookupvivit.cli.doctor.report import FAIL, WARN, examine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="FOLDER", help="of runs (runs)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of videos, to see how fast they can be read")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    arguments = parser.parse_args()
    if arguments.data and not arguments.data.is_dir():
        give_up(f"--data: {arguments.data} is no folder; give the one with the videos")
    with tempfile.TemporaryDirectory(prefix="doctor_") as scratch:
        listed = checks(Path(scratch), arguments.output, arguments.data)
        width = max(len(name) for name, _ in listed)
        results = []
        for check in listed:
            results.append(examine(check))
            if not arguments.json:
                print(results[-1].line(width), flush=True)
    marks = [result.finding.mark for result in results]
    failed, warned = marks.count(FAIL), marks.count(WARN)
    if arguments.json:
        told = {"checks": [result.to_dict() for result in results], "failed": failed, "warned": warned}
        print(json.dumps(told, indent=1))
    else:
        seconds = sum(result.seconds for result in results)
        print(f"{len(results)} checks in {seconds:.0f} s: {failed} failed, {warned} to be warned of")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
