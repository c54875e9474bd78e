"""Score the stored predictions of a test for fewer views or one classifier, and per class, without torch."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import write_text
from data_pipelines.io.output_paths import OutputPathError, require_output_file
from data_pipelines.io.text import one_line
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.evaluation import aggregate
from lookupvivit.evaluation.array_files import PredictionsError
from lookupvivit.evaluation.metrics import confusion_matrix
from lookupvivit.evaluation.stored_predictions import AVERAGES, BOTH, Predictions


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    try:
        predictions = Predictions.load(arguments.file)
        if predictions.is_multi_label:
            raise PredictionsError(
                f"{arguments.file}: found several labels per video; the test's .json has their scores"
            )
        is_single = any(value is not None for value in (arguments.clips, arguments.crops, arguments.classifier))
        report = score_one(predictions, arguments) if is_single else score_all(predictions, arguments.average)
    except FileNotFoundError:
        sys.exit(f"error: {arguments.file}: not found; expected a test's predictions, such as RUN/predictions/4x3.npz")
    except (PredictionsError, OutputPathError, OSError) as error:
        sys.exit(f"error: {error}")
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, predictions.unit)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "predictions of a test, such as runs/camera_motion/predictions/4x3.npz"
    parser.add_argument("file", type=Path, metavar="FILE", help=help)
    parser.add_argument("--clips", type=int, metavar="N", help="the number of clips per video (default: all)")
    parser.add_argument("--crops", type=int, metavar="N", help="the number of crops per clip (default: all)")
    help = "what is averaged over the views (default: logits)"
    parser.add_argument("--average", choices=AVERAGES, default="logits", help=help)
    classifiers = (BOTH, "compressed", "lookup")
    help = "which logits are scored; both: the mean of the classifiers (default)"
    parser.add_argument("--classifier", choices=classifiers, help=help)
    parser.add_argument("--head", dest="classifier", choices=classifiers, help=argparse.SUPPRESS)  # of version 0.1
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    return parser.parse_args()


def score_all(predictions: Predictions, average: str) -> dict[str, Any]:
    """The facts of the test, and the scores of all view subsets and classifiers."""
    scores = aggregate.score_table(predictions, average)
    return {**predictions.facts, "videos": len(predictions.labels), "scores": scores}


def score_one(predictions: Predictions, arguments: argparse.Namespace) -> dict[str, Any]:
    """The scores of one view subset and classifier, with classes and confusions, which are also written to files."""
    from lookupvivit.visualization.canvas import save_png
    from lookupvivit.visualization.confusion_figure import confusion_figure

    views = aggregate.find_view_subset(predictions, arguments.clips, arguments.crops)
    classifier, average = arguments.classifier or BOTH, arguments.average
    stem = f"{arguments.file.stem}_as_{views}_{classifier}_{average}"
    table, figure = (arguments.file.with_name(stem + ending) for ending in ("_classes.csv", "_confusion.png"))
    for file in (table, figure):
        require_output_file(file)
    score = {"views": views, "classifier": classifier, "average": average}
    score |= predictions.summary(classifier, average)["views"][views]
    logits = predictions.video_logits(predictions.view_subsets()[views], classifier, average)
    classes = aggregate.class_table(predictions, logits)
    write_text(table, aggregate.class_table_csv(classes))
    matrix = confusion_matrix(predictions.labels, logits.argmax(axis=1), len(predictions.class_names))
    save_png(figure, confusion_figure(matrix, predictions.class_names))
    return {
        **predictions.facts,
        "videos": len(predictions.labels),
        "scores": [score],
        "confused": aggregate.confused_pairs(predictions, logits),
        "classes": classes,
        "written": [str(table), str(figure)],
    }


def print_report(report: dict[str, Any], unit: str) -> None:
    """Print what `score_all` or `score_one` returned, as text."""
    average = report["scores"][0]["average"]
    source = one_line(f"{report.get('checkpoint', 'predictions')}, step {report.get('step')}")
    print(f"{source}, average of {average} over the views")
    print(aggregate.score_table_text(report["scores"], report["videos"]))
    for reason in report.get("broken_videos", {}).values():
        print(f"FAILED, not in the scores: {one_line(reason)}")
    if excluded := aggregate.excluded_videos(report):
        print(f"not in the scores: {excluded}")
    if report.get("confused"):
        print(f"most confused (true class -> predicted class, {unit}s):")
    for pair in report.get("confused", ()):
        print(one_line(f"  {pair['true']} -> {pair['predicted']}  {pair['videos']}"))
    for file in report.get("written", ()):
        print(f"written: {file}")


if __name__ == "__main__":
    main()
