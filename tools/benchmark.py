"""Measure speed and memory of models side by side: latency, throughput, utilisation, peak memory, and by operator.

    python tools/benchmark.py vivit_b16x2 lookupvivit_b16x2_9x9x8 lookupvivit_b16x2_9x9x8@16x8x8 --train
    python tools/benchmark.py lookupvivit_b16x2_9x9x8 --train --kernels reference,auto
    python tools/benchmark.py vit_b16 lookupvit_b16_5x5 timm:vit_base_patch16_224 vit_pytorch:LookViT --batch 8
    python tools/benchmark.py vivit_b16x2 lookupvivit_b16x2_9x9x8 --operators

The models take turns in every round, so that ratios hold where a machine has other things to do. A size after @ is
t x h x w compressed tokens. Peers of other libraries, where these are installed, take their sizes from the first model
of the catalogue, by preference a LookupViT: timm:NAME, transformers:vivit, vit_pytorch:LookViT.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from data_pipelines.io.progress import progress
from lookupvivit import kernels
from lookupvivit.cli.arguments import device, give_up, whole_number
from lookupvivit.profiling.benchmark import Benchmark, benchmark, calls_of
from lookupvivit.profiling.benchmark_cases import Setting, cases, without_data
from lookupvivit.profiling.benchmark_table import legend, operator_table, tables
from lookupvivit.profiling.measured_memory import FootprintError
from lookupvivit.profiling.memory_estimate import DTYPES


def main() -> None:
    arguments = understand()
    setting = Setting(arguments.batch, arguments.dtype, arguments.compile, str(arguments.device), arguments.threads)
    try:
        found = measure(arguments, setting)
        if arguments.json:
            arguments.json.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    except (ValueError, FootprintError, OSError) as error:
        give_up(error)
    except torch.OutOfMemoryError as error:
        give_up(f"these models do not fit together, measure fewer at a time or a smaller batch: {error}")
    print(f"{legend(found)}\n\n{tables(found, arguments.markdown)}")
    for row in found.rows if arguments.operators else ():
        print(
            f"\n{row.model}{f', kernels {row.kernels}' if row.kernels else ''}: "
            f"a forward pass of batch {setting.batch} by operator; GFLOPs as done\n"
        )
        print(operator_table(row, arguments.markdown))


def understand() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="of the catalogue, with @TxHxW if so wished; peers")
    parser.add_argument("--train", action="store_true", help="measure training steps, too")
    parser.add_argument("--operators", action="store_true", help="a table by operator of each model's forward pass")
    parser.add_argument("--batch", type=whole_number, default=1, help="clips or pictures per call (1)")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of weights and input (fp32)")
    parser.add_argument("--compile", action="store_true", help="models through torch.compile (minutes for each)")
    parser.add_argument(
        "--kernels",
        metavar="NAME,...",
        type=engines,
        help=f"of the exchange, each on a line of its own: {', '.join(kernels.NAMES)}",
    )
    parser.add_argument("--device", type=device, default=device("cpu"), help="cpu, cuda, cuda:1, ... (cpu)")
    parser.add_argument("--threads", type=whole_number, help="of the CPU (torch's choice)")
    parser.add_argument("--rounds", type=whole_number, default=15, help="of the measurement (15)")
    parser.add_argument("--no-memory", action="store_true", help="leave memory out, which takes a process per model")
    parser.add_argument(
        "--json",
        type=writable,
        metavar="FILE",
        help="write all that was measured, every round's times; folders are made",
    )
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    arguments = parser.parse_args()
    if arguments.compile and arguments.operators:
        parser.error("--operators: looks at modules, which --compile melts together; give one of them")
    return arguments


def measure(arguments: argparse.Namespace, setting: Setting) -> Benchmark:
    """Under a progress bar."""
    lines = cases(arguments.models, arguments.kernels or [kernels.chosen()])
    for case in lines:  # what cannot be built is told before anything is measured
        without_data(case)
    options = {"train": arguments.train, "memory": not arguments.no_memory, "operators": arguments.operators}
    total = calls_of(len(lines), arguments.rounds, **options)
    with progress(total=total, file=sys.stderr, unit="call", desc=f"{len(lines)} models", leave=False) as bar:
        return benchmark(lines, setting, arguments.rounds, **options, after=bar.update)


def writable(text: str) -> Path:
    """An argument that names a file to write; makes its folders."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, whose folder cannot be made: {error.strerror}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"found {text!r}, must be a file in a folder that can be written to")
    return path


def engines(text: str) -> list[str]:
    """An argument of kernels' names."""
    names = list(dict.fromkeys(text.split(",")))
    if wrong := [name for name in names if name not in kernels.NAMES]:
        raise argparse.ArgumentTypeError(f"found {wrong[0]!r}, must be of {', '.join(kernels.NAMES)}")
    return names


if __name__ == "__main__":
    main()
