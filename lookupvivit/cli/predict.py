"""Print the classes that a trained model predicts for videos, images and folders; for long videos also over time."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from data_pipelines.io.errors import DataError
from data_pipelines.io.growing_json import growing_json
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.io.progress import progress
from data_pipelines.io.real_paths import require_not_among
from data_pipelines.io.text import one_line, output_name
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_compressed_size_option,
    add_device_option,
    add_json_file_option,
    add_output_option,
    add_run_option,
    positive_int,
    positive_seconds,
    view_counts,
)
from lookupvivit.cli.closed_output import quiet_when_output_closes
from lookupvivit.cli.errors import one_line_errors

if TYPE_CHECKING:
    from lookupvivit.evaluation.predictor import Predictor


@quiet_when_output_closes()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("the results printed so far are valid"):
        failed = predict(arguments)
    sys.exit(1 if failed else 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "files, folders (searched recursively) or patterns"
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help=help)
    add_run_option(parser)
    help = "number of classes to report (default: 5)"
    parser.add_argument("--top", type=positive_int, default=5, metavar="K", help=help)
    help = "views of the whole video (default: 4x3)"
    parser.add_argument("--views", type=view_counts, default=(4, 3), metavar="CLIPSxCROPS", help=help)
    help = "time between the starts of two clips of the timeline (default: consecutive clips, for long videos only)"
    parser.add_argument("--window", type=positive_seconds, metavar="SECONDS", help=help)
    add_output_option(parser, "one figure per file")
    add_json_file_option(parser)
    add_compressed_size_option(parser)
    add_device_option(parser)
    add_batch_size_option(parser, default=8)
    return parser.parse_args()


def predict(arguments: argparse.Namespace) -> int:
    """Predict and report every video; the number of files that could not be read."""
    from lookupvivit.evaluation.prediction_report import as_figure, as_json, as_text

    clips, crops = arguments.views
    views = f"{clips}x{crops}"
    predictor = load_predictor(arguments)
    inputs = expand_inputs(arguments.videos, separate_images=predictor.preprocess.sampling.frames == 1)
    if inputs.num_ignored:
        print(f"{inputs.num_ignored} files ignored that are neither videos nor images")
    figures = {name: arguments.output / f"{output_name(name)}.png" for name in inputs.paths} if arguments.output else {}
    require_not_among([*figures.values(), *filter(None, [arguments.json])], inputs.paths.values())
    report: dict[str, Any] = {"model": str(arguments.run), "views": views, "videos": []}
    failed = 0
    # Without a terminal, the printed results show the progress.
    no_bar = len(inputs.paths) < 2 or not sys.stdout.isatty()
    bar = progress(inputs.paths.items(), unit="file", desc="predict", disable=no_bar)
    with growing_json(arguments.json, report) as save, bar:
        for name, path in bar:
            try:
                prediction = predictor(path)
            except (DataError, OSError) as error:
                failed += 1
                report["videos"].append({"path": path, "error": str(error)})
                save()
                tqdm.write(f"error: {one_line(error)}", file=sys.stderr)
                continue
            report["videos"].append(as_json(prediction, arguments.top))
            save()
            tqdm.write(as_text(prediction, arguments.top))
            sys.stdout.flush()
            if name in figures:
                from lookupvivit.visualization.canvas import save_png

                save_png(figures[name], as_figure(prediction, arguments.top, name, str(arguments.run), views))
    if failed:
        print(f"{failed} of {len(inputs.paths)} files could not be read", file=sys.stderr)
    if arguments.output and failed < len(inputs.paths):
        print(f"figures: {arguments.output}")
    return failed


def load_predictor(arguments: argparse.Namespace) -> Predictor:
    """The predictor that the options describe; errors name the run."""
    from lookupvivit.evaluation.predictor import Predictor
    from lookupvivit.weights.files import WeightsError, load_classifier

    model = load_classifier(arguments.run)
    clips, crops = arguments.views
    try:
        return Predictor(
            model,
            clips,
            crops,
            window=arguments.window,
            compressed_size=arguments.compressed_size,
            batch_size=arguments.batch_size,
            device=arguments.device,
        )
    except (WeightsError, DataError) as error:
        raise WeightsError(f"{arguments.run}: {error}") from None


if __name__ == "__main__":
    main()
