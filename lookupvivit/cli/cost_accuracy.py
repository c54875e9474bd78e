"""Evaluate accuracy against GFLOPs and speed: one checkpoint at many compressed sizes, compared with others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.io.output_paths import require_output_folder
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_output_option,
    add_run_option,
    positive_int,
    token_setting,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.config.loading import load_config
from lookupvivit.sizes import TokenSetting


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    from lookupvivit.accuracy_cost.evaluate import cost_accuracy
    from lookupvivit.accuracy_cost.plan import Options

    run: Path = arguments.run
    with one_line_errors("finished points are kept"):
        config = load_config(run / "config.yaml", arguments.overrides)
        output = arguments.output or run / "cost_accuracy"
        require_output_folder(output)
        options = Options(
            run=config.checkpoint or str(run),
            output=output,
            individuals=tuple(str(Path(path)) for path in arguments.individual),
            everywhere=arguments.everywhere,
            sizes=arguments.sizes,
            image_sizes=arguments.image_sizes,
            cascade=arguments.cascade,
            batch_size=arguments.batch_size,
            rounds=arguments.rounds,
        )
        cost_accuracy(config, options)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser, required=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="set a key, such as eval.clips=1")
    parser.add_argument(
        "--sizes",
        type=token_settings,
        default=(),
        metavar="TxHxW[@KEEP],...",
        help="compressed sizes, shares of lookup tokens to keep (@0.5), or both (default: as in training)",
    )
    parser.add_argument(
        "--individual",
        metavar="RUN",
        action="append",
        default=[],
        help="another checkpoint, evaluated at its own size; can be repeated",
    )
    parser.add_argument("--everywhere", action="store_true", help="evaluate the others at all sizes")
    parser.add_argument(
        "--image-sizes", type=pixels, default=(), metavar="PIXELS,...", help="sides of the input (default: the run's)"
    )
    parser.add_argument(
        "--cascade",
        type=cascade_sizes,
        metavar="TxHxW[@KEEP],TxHxW[@KEEP]",
        help="the small and the large size of the cascade (default: the cheapest and the most expensive)",
    )
    add_batch_size_option(parser, default=None, unit="in the speed measurement: views")
    parser.add_argument(
        "--rounds", type=positive_int, default=25, metavar="N", help="rounds of the speed measurement (default: 25)"
    )
    add_output_option(parser, "the results (default: cost_accuracy in the run)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.run is None and arguments.overrides and "=" not in arguments.overrides[0]:
        arguments.run = Path(arguments.overrides.pop(0))  # the form of version 0.1
    if arguments.run is None:
        parser.error("argument --run: expected a run directory")
    if arguments.cascade and arguments.sizes and not set(arguments.cascade) <= set(arguments.sizes):
        parser.error("argument --cascade: expected two of --sizes")
    if arguments.cascade and len(arguments.image_sizes) > 1:
        parser.error("argument --cascade: not allowed with several --image-sizes")
    return arguments


def token_settings(text: str) -> tuple[TokenSetting, ...]:
    """Settings such as 4x2x2,4x3x3@0.5,@0.5, without duplicates."""
    return tuple(dict.fromkeys(token_setting(part) for part in text.split(",") if part))


def cascade_sizes(text: str) -> tuple[TokenSetting, TokenSetting]:
    """Two different settings."""
    sizes = token_settings(text)
    if len(sizes) != 2:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected two different sizes, such as 4x2x2,4x6x6")
    return sizes[0], sizes[1]


def pixels(text: str) -> tuple[int, ...]:
    """Image sizes such as 224,384, without duplicates."""
    return tuple(dict.fromkeys(positive_int(part) for part in text.split(",") if part))


if __name__ == "__main__":
    main()
