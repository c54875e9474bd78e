"""Print the classes that a trained model predicts for videos, images and folders; for long videos also over time."""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from data_pipelines.io.cores import num_workers
from data_pipelines.io.errors import DataError
from data_pipelines.io.growing_json import growing_json, growing_text
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.io.progress import progress
from data_pipelines.io.real_paths import require_not_among
from data_pipelines.io.text import one_line, output_name
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_device_option,
    add_json_file_option,
    add_output_option,
    add_run_option,
    add_tokens_option,
    output_file,
    positive_int,
    positive_seconds,
    view_counts,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors

if TYPE_CHECKING:
    from lookupvivit.evaluation.prediction import Prediction
    from lookupvivit.evaluation.predictor import Predictor

OF_FILES = {"videos": "VIDEO", "views": "--views", "output": "--output", "csv": "--csv", "logits": "--logits"}
DEFAULT_RUN = "camera_motion"
MAX_DECODERS = 8  # processes, each with a thread that holds the views of a file


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("the results printed so far are valid"):
        if arguments.run is None:
            arguments.run = Path(DEFAULT_RUN)
            print(f"no --run: camera motion, recognised by the shipped model {DEFAULT_RUN}")
        failed = follow_source(arguments) if arguments.follow else predict(arguments)
    sys.exit(1 if failed else 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "files, folders (searched recursively) or patterns"
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help=help)
    add_run_option(parser, default=f"{DEFAULT_RUN}, camera motion")
    help = (
        "instead of files, a source that may never end: a camera (/dev/video0), an address (rtsp://...), - for a pipe"
    )
    parser.add_argument("--follow", metavar="SOURCE", help=help)
    help = "number of classes to report (default: 5)"
    parser.add_argument("--top", type=positive_int, default=5, metavar="K", help=help)
    help = "views of each video (default: 4x3; clips over time for videos longer than four clips)"
    parser.add_argument("--views", type=view_counts, default=(None, None), metavar="CLIPSxCROPS", help=help)
    help = "time between the starts of two clips over time (default: consecutive clips, for long videos only)"
    parser.add_argument("--window", type=positive_seconds, metavar="SECONDS", help=help)
    add_output_option(parser, "one figure per file")
    add_json_file_option(parser, "the results, with --follow one line per clip and segment,")
    parser.add_argument("--csv", type=output_file, metavar="FILE", help="also write a table with a row per file")
    help = "also write the mean logits of all classes, to the files of --json and --csv"
    parser.add_argument("--logits", action="store_true", help=help)
    add_tokens_option(parser)
    add_device_option(parser)
    add_batch_size_option(parser, default=8)
    arguments = parser.parse_args()
    if arguments.logits and not (arguments.json or arguments.csv):
        parser.error("argument --logits: expected --json FILE or --csv FILE as well")
    if arguments.follow is None and not arguments.videos:
        parser.error("the following arguments are required: VIDEO, or --follow SOURCE")
    for name in OF_FILES:
        if arguments.follow is not None and getattr(arguments, name) not in (None, False, [], (None, None)):
            parser.error(f"argument --follow: found together with {OF_FILES[name]}, which is for files")
    return arguments


def follow_source(arguments: argparse.Namespace) -> int:
    """Predict and report a source until it ends."""
    from lookupvivit.cli.follow import follow
    from lookupvivit.evaluation.stream import Stream
    from lookupvivit.weights.files import WeightsError, load_classifier

    if arguments.json and os.path.isfile(arguments.follow):
        require_not_among([arguments.json], [arguments.follow])
    model = load_classifier(arguments.run)
    try:
        tokens = arguments.tokens
        stream = Stream(model, arguments.window, tokens.compressed_size, arguments.device, tokens.keep)
    except (WeightsError, DataError) as error:
        raise WeightsError(f"{arguments.run}: {error}") from None
    follow(stream, arguments)
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Predict and report every video; the number of files that could not be read."""
    from lookupvivit.evaluation.prediction_report import as_csv, as_json, as_text, summary

    predictor = load_predictor(arguments)
    inputs = expand_inputs(arguments.videos, separate_images=predictor.preprocess.sampling.frames == 1)
    if inputs.num_ignored:
        print(f"{inputs.num_ignored} files ignored that are neither videos nor images")
    figures = {name: arguments.output / f"{output_name(name)}.png" for name in inputs.paths} if arguments.output else {}
    require_not_among([*figures.values(), *filter(None, [arguments.json, arguments.csv])], inputs.paths.values())
    videos: list[dict[str, Any]] = []
    report = {"model": str(arguments.run), "views": f"{predictor.clips}x{predictor.crops}", "videos": videos}
    table = partial(as_csv, videos, predictor.class_names, arguments.top, arguments.logits)
    outcomes = predictor.predict_all(inputs.paths.values(), min(len(inputs.paths), num_workers(), MAX_DECODERS))
    start = time.monotonic()
    # Without a terminal, the printed results show the progress, and standard error has only errors.
    no_bar = len(inputs.paths) < 2 or not sys.stderr.isatty()
    bar = progress(total=len(inputs.paths), file=sys.stderr, unit="file", desc="predict", disable=no_bar)
    with growing_json(arguments.json, report) as save_json, growing_text(arguments.csv, table) as save_csv, bar:
        for (name, path), outcome in zip(inputs.paths.items(), outcomes, strict=True):
            if isinstance(outcome, Exception):
                videos.append({"path": path, "error": str(outcome)})
            else:
                videos.append(as_json(outcome, arguments.top, arguments.logits))
            save_json()
            save_csv()
            bar.update()
            if isinstance(outcome, Exception):
                tqdm.write(f"error: {one_line(outcome)}", file=sys.stderr)
                continue
            tqdm.write(as_text(outcome, arguments.top))
            sys.stdout.flush()
            if name in figures:
                _save_figure(figures[name], outcome, name, arguments)
    failed = sum("error" in video for video in videos)
    if len(videos) > 1:
        print(summary(videos, time.monotonic() - start))
    if failed:
        print(f"{failed} of {len(videos)} files could not be read", file=sys.stderr)
    if arguments.output and failed < len(videos):
        print(f"figures: {arguments.output}")
    return failed


def _save_figure(file: Path, prediction: Prediction, name: str, arguments: argparse.Namespace) -> None:
    from lookupvivit.evaluation.prediction_report import as_figure
    from lookupvivit.visualization.canvas import save_png  # imports matplotlib

    save_png(file, as_figure(prediction, arguments.top, name, str(arguments.run)))


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
            compressed_size=arguments.tokens.compressed_size,
            keep=arguments.tokens.keep,
            batch_size=arguments.batch_size,
            device=arguments.device,
        )
    except (WeightsError, DataError) as error:
        raise WeightsError(f"{arguments.run}: {error}") from None


if __name__ == "__main__":
    main()
