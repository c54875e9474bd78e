"""Measure few-shot transfer of a model to a labelled image dataset (paper, Table 9)."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_pipelines.io.atomic import write_json
from data_pipelines.io.cores import num_workers
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_device_option,
    add_json_file_option,
    add_run_option,
    non_negative_int,
    positive_int,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import exit_with_error, one_line_errors
from lookupvivit.probing.few_shot import SEEDS, SHOTS


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("nothing was saved"):
        probe(arguments)


def probe(arguments: argparse.Namespace) -> None:
    """Measure the transfer, print it and write it."""
    from data_pipelines.datasets.class_folders import read_class_folders
    from lookupvivit.probing.transfer import evaluate_transfer
    from lookupvivit.weights.files import load_classifier

    try:
        train = read_class_folders(arguments.train)
        test = read_class_folders(arguments.test, train.class_names)
        transfer = evaluate_transfer(
            load_classifier(arguments.run).to(arguments.device),
            train,
            test,
            arguments.shots,
            batch_size=arguments.batch_size,
            device=arguments.device,
            workers=arguments.workers,
        )
    except ValueError as error:  # DataError, WeightsError, or features that are not finite
        exit_with_error(error)
    print(f"\n{transfer}")
    if arguments.json:
        accuracies = {score.shots: dict(zip(SEEDS, score.accuracies, strict=True)) for score in transfer.scores}
        inputs = {"model": str(arguments.run), "train": str(arguments.train), "test": str(arguments.test)}
        write_json(arguments.json, {**inputs, "classes": transfer.num_classes, "accuracies": accuracies})


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser)
    parser.add_argument("--train", type=Path, required=True, metavar="FOLDER", help="images to choose from")
    parser.add_argument("--test", type=Path, required=True, metavar="FOLDER", help="test images of the same classes")
    parser.add_argument(
        "--shots",
        type=positive_int,
        nargs="+",
        default=SHOTS,
        metavar="N",
        help=f"training images per class (default: {' '.join(map(str, SHOTS))})",
    )
    add_json_file_option(parser, "the accuracies of every seed")
    add_device_option(parser)
    add_batch_size_option(parser, default=64, unit="images")
    parser.add_argument(
        "--workers",
        type=non_negative_int,
        default=num_workers(),
        help="processes that read images (default: one per CPU)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
