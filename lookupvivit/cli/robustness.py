"""Test a model on ImageNet-A, -R, -O and -C (paper, Tables 2 and 6, Fig. 4)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.atomic import write_json
from data_pipelines.io.cores import num_workers
from data_pipelines.io.lock import locked
from data_pipelines.io.output_paths import require_output_folder
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_device_option,
    add_output_option,
    add_run_option,
    non_negative_int,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import exit_with_error, one_line_errors
from lookupvivit.robustness.report import TITLES, Report, load_report, tables

if TYPE_CHECKING:
    from lookupvivit.robustness.suite import RobustnessSuite


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    from lookupvivit.weights.files import weights_file

    with one_line_errors("finished parts are saved"):
        output = arguments.output or weights_file(arguments.run).parent / "predictions" / "robustness"
        require_output_folder(output)
        with locked(output / ".lock"):
            test(arguments, output)


def test(arguments: argparse.Namespace, output: Path) -> None:
    """Evaluate, print the tables and write the report."""
    from lookupvivit.robustness.figures import deviation_figure
    from lookupvivit.robustness.suite import RobustnessSuite
    from lookupvivit.visualization.canvas import save_png
    from lookupvivit.weights.files import load_classifier

    model_name = str(arguments.run)
    try:
        model = load_classifier(arguments.run).to(arguments.device)
        suite = RobustnessSuite(model, arguments.run, output, arguments.batch_size, arguments.device, arguments.workers)
        results = evaluate(suite, arguments)
    except ValueError as error:  # DataError, WeightsError, or outputs that are not finite
        exit_with_error(error)
    file = output / "robustness.json"
    report = {**load_report(file, suite.fingerprint), **results}
    print(tables(model_name, report))
    earlier = [TITLES[name] for name in report if name not in results]
    if earlier:
        print(f"from earlier calls: {', '.join(earlier)}")
    write_json(file, {"model": model_name, "weights": suite.fingerprint, **report})
    print(f"saved {file}, and next to it the predictions of every image")
    corruptions = results.get("imagenet_c", {})
    if "mce" in corruptions and "deviations" in corruptions:
        figure_file = output / "feature_deviation.png"
        save_png(figure_file, deviation_figure({model_name: suite.deviations()}))
        print(f"saved {figure_file}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser)
    parser.add_argument(
        "--imagenet", type=Path, metavar="FOLDER", help="ImageNet's validation images, one folder per class"
    )
    for title in TITLES.values():
        parser.add_argument(f"--{title.lower()}", type=Path, metavar="FOLDER", help=f"the images of {title}")
    add_output_option(parser, "the results (default: predictions/robustness in the run)")
    add_device_option(parser)
    add_batch_size_option(parser, default=64, unit="images")
    parser.add_argument(
        "--workers",
        type=non_negative_int,
        default=num_workers(),
        help="processes that read images (default: one per CPU)",
    )
    arguments = parser.parse_args()
    if all(getattr(arguments, name) is None for name in TITLES):
        parser.error("expected the folder of at least one dataset, such as --imagenet-a FOLDER")
    if arguments.imagenet_o is not None and arguments.imagenet is None:
        parser.error("argument --imagenet-o: expected --imagenet as well; outliers are detected among its images")
    for name in ("imagenet", *TITLES):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"argument --{name.replace('_', '-')}: {folder}: no such folder")
    return arguments


def evaluate(suite: RobustnessSuite, arguments: argparse.Namespace) -> Report:
    """Evaluate on every dataset that was given."""
    report: Report = {}
    for name in ("imagenet_a", "imagenet_r"):
        folder = getattr(arguments, name)
        if folder is not None:
            report[name] = suite.evaluate_subset(name, folder)
    if arguments.imagenet_o is not None:
        report["imagenet_o"] = suite.evaluate_outliers(arguments.imagenet_o, arguments.imagenet)
    if arguments.imagenet_c is not None:
        report["imagenet_c"] = suite.evaluate_corruptions(arguments.imagenet_c, arguments.imagenet)
    return report


if __name__ == "__main__":
    main()
