"""Measure on a GPU what the documentation and the choice of kernels depend on, in at most 8 minutes.

A report that was interrupted, or did not finish in time, continues in the next call. Results are one JSON file per
section, the table `tuned.json` of the fastest kernels, and the Markdown tables of docs/PERFORMANCE.md in `report.md`.
Needs torch, triton, timm and einops only; DeepSpeed is measured if installed.
"""

from __future__ import annotations

import argparse
import sys

from lookupvivit.cli.arguments import add_output_option
from lookupvivit.cli.closed_output import ends_quietly

SECONDS = 480.0


@ends_quietly()
def main() -> None:
    """Measure what is missing, and write the report."""
    arguments = parse_args()
    import torch

    from data_pipelines.io.atomic import write_text
    from lookupvivit.kernels import tuned
    from lookupvivit.profiling.gpu_report.runner import run_report
    from lookupvivit.profiling.gpu_report.state import Context
    from lookupvivit.profiling.gpu_report.table import table_file
    from lookupvivit.profiling.gpu_report.tables import write_report

    device = torch.device("cpu" if arguments.dry_run else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: found no GPU that torch can use; --dry-run tests the report on the CPU", file=sys.stderr)
        sys.exit(2)
    name = "".join(letter if letter.isalnum() else "_" for letter in tuned.device_name(device))
    context = Context(device, arguments.output / name, arguments.dry_run)

    def report(line: str) -> None:  # after every section: a report that is interrupted has its tables
        print(f"{line}; see {write_report(context)}", flush=True)

    states = run_report(context, arguments.seconds, report, in_process=arguments.dry_run)
    has_table = not arguments.dry_run and all(states[name].complete for name in ("tuning", "alternatives"))
    if arguments.install and has_table:
        try:
            write_text(tuned.FILE, table_file(context).read_text(encoding="utf-8"))
        except OSError as error:
            print(f"error: {error}; {table_file(context)} has the table", file=sys.stderr)
            sys.exit(2)
        print(f"{tuned.FILE}: replaced")
    if not all(state.complete for state in states.values()):
        print("not complete: the same command continues")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_output_option(parser, "the report", default="runs/gpu_report")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"time limit (default: {SECONDS:.0f})")
    parser.add_argument("--install", action="store_true", help="replace the table of kernels of this package")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU, to test the report itself")
    return parser.parse_args()


if __name__ == "__main__":
    main()
