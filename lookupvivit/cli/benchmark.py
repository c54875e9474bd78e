"""Measure the speed and memory of several models: latency, throughput, MFU, peak memory, and time by operator.

The models alternate in every round, so that their ratios hold on a busy machine. NAME@TxHxW is a model with TxHxW
compressed tokens, NAME@0.5 one that keeps half of its lookup tokens, and NAME@TxHxW@0.5 is both. Models of other
libraries are timm:NAME, transformers:vivit and vit_pytorch:LookViT, where these are installed; the last two take their
sizes from the first model of the registry, preferring a LookupViT.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from data_pipelines.io.atomic import write_json
from data_pipelines.io.progress import progress
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_device_option,
    add_json_file_option,
    positive_int,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import exit_with_error

if TYPE_CHECKING:
    from lookupvivit.profiling.benchmark import Benchmark


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    import torch

    from lookupvivit.profiling.memory_measurement import MemoryMeasurementError

    try:
        benchmark = measure(arguments)
        print_results(benchmark, arguments.markdown)
        if arguments.json:
            write_json(arguments.json, benchmark.to_dict())
    except (ValueError, MemoryMeasurementError, OSError) as error:
        exit_with_error(error)
    except torch.OutOfMemoryError as error:
        exit_with_error(f"the models do not fit into memory together; give fewer or a smaller --batch-size: {error}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="NAME, NAME@TxHxW, NAME@KEEP, NAME@TxHxW@KEEP or a model of another library",
    )
    parser.add_argument("--train", action="store_true", help="also measure training steps")
    parser.add_argument("--operators", action="store_true", help="also measure each forward pass by operator")
    add_batch_size_option(parser, default=1, unit="clips or images")
    dtype_help = "type of weights and input: fp32, bf16 or fp16 (default: fp32)"
    parser.add_argument("--dtype", type=dtype_name, default="fp32", help=dtype_help)
    parser.add_argument("--compile", action="store_true", help="use torch.compile (minutes per model)")
    kernels_help = "implementations of the exchange, one row each, such as reference,auto (docs/PERFORMANCE.md)"
    parser.add_argument("--kernels", metavar="NAME,...", type=kernel_names, help=kernels_help)
    add_device_option(parser, default="cpu")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="number of CPU threads (default: torch's)")
    parser.add_argument("--rounds", type=positive_int, default=15, metavar="N", help="timed calls (default: 15)")
    parser.add_argument("--no-memory", action="store_true", help="skip memory, which takes one process per model")
    add_json_file_option(parser, contents="all results, including the time of every round,")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    arguments = parser.parse_args()
    if arguments.compile and arguments.operators:
        parser.error("argument --operators: not possible with --compile, which merges operators across modules")
    return arguments


def dtype_name(text: str) -> str:
    """The name of a floating-point type."""
    from lookupvivit.profiling.dtypes import DTYPES

    if text not in DTYPES:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected one of {', '.join(DTYPES)}")
    return text


def kernel_names(text: str) -> list[str]:
    """A comma-separated list of implementations."""
    from lookupvivit import kernels

    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in kernels.NAMES:
            raise argparse.ArgumentTypeError(f"found {name!r}, expected one of {', '.join(kernels.NAMES)}")
    return names


def measure(arguments: argparse.Namespace) -> Benchmark:
    """Run the benchmark with a progress bar."""
    from lookupvivit import kernels
    from lookupvivit.profiling.benchmark import count_calls, run_benchmark
    from lookupvivit.profiling.benchmark_cases import Setting, meta_model, parse_cases

    setting = Setting(
        batch=arguments.batch_size,
        dtype=arguments.dtype,
        compile=arguments.compile,
        device=str(arguments.device),
        threads=arguments.threads,
    )
    cases = parse_cases(arguments.models, arguments.kernels or [kernels.chosen()])
    for case in cases:  # report invalid models before measuring any
        meta_model(case)
    parts = {"train": arguments.train, "memory": not arguments.no_memory, "operators": arguments.operators}
    total = count_calls(len(cases), arguments.rounds, **parts)
    with progress(total=total, file=sys.stderr, unit="call", desc=f"{len(cases)} models", leave=False) as bar:
        return run_benchmark(cases, setting, arguments.rounds, **parts, after=bar.update)


def print_results(benchmark: Benchmark, markdown: bool) -> None:
    from lookupvivit.profiling.benchmark_table import format_legend, format_operator_table, format_tables

    print(f"{format_legend(benchmark)}\n\n{format_tables(benchmark, markdown)}")
    for row in benchmark.rows:
        if row.operators is None:
            continue
        model = row.model if row.kernels is None else f"{row.model}, kernels {row.kernels}"
        print(f"\n{model}: forward pass of batch {benchmark.setting.batch} by operator")
        print("GFLOPs: multiply-adds of the batch that the kernels perform\n")
        print(format_operator_table(row.operators, markdown))


if __name__ == "__main__":
    main()
