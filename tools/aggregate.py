"""Scores of a saved test with fewer views or one head, per class and per confusion: no GPU, no video, no torch.

    python tools/aggregate.py runs/k400_9x9x8/predictions/4x3.npz
    python tools/aggregate.py runs/k400_9x9x8/predictions/4x3.npz --clips 1 --crops 1 --head compressed
    python tools/aggregate.py runs/k400_9x9x8/predictions/4x3.npz --average softmax --json

Without options it prints every view subset by every head. With --clips, --crops or --head it scores that one, tells the
most confused pairs, and writes the table of the classes and the confusion picture beside the file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lookupvivit.evaluation import aggregate
from lookupvivit.evaluation.metrics import confusion_matrix
from lookupvivit.evaluation.predictions import AVERAGES, Predictions, PredictionsError
from lookupvivit.visualization.canvas import save_png
from lookupvivit.visualization.confusion_figure import confusion_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="predictions of a test, such as runs/camera_motion/predictions/4x3.npz")
    parser.add_argument("--clips", type=int, help="score as a test with so many clips (default: all)")
    parser.add_argument("--crops", type=int, help="and so many crops (default: all)")
    parser.add_argument("--average", choices=AVERAGES, default="logits", help="what is averaged over the views")
    parser.add_argument("--head", choices=("both", "compressed", "lookup"), help="default: both, by the mean of logits")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        predictions = Predictions.load(options.file)
        one = any(value is not None for value in (options.clips, options.crops, options.head))
        found = detail(predictions, options) if one else overview(predictions, options.average)
    except FileNotFoundError:
        sys.exit(f"error: {options.file}: no such file; expected the predictions of a test: RUN/predictions/4x3.npz")
    except (PredictionsError, OSError) as error:
        sys.exit(f"error: {error}")
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        tell(found)


def overview(predictions: Predictions, average: str) -> dict[str, Any]:
    """Facts of the test, and the scores of all view subsets by all heads."""
    scores = aggregate.score_table(predictions, average)
    return {**predictions.facts, "videos": len(predictions.labels), "scores": scores}


def detail(predictions: Predictions, options: argparse.Namespace) -> dict[str, Any]:
    """The overview's entry of one view subset and head, with its classes and confusions, which are written too."""
    views = aggregate.choose_views(predictions, options.clips, options.crops)
    head = options.head or "both"
    score = {"views": views, "head": head, "average": options.average}
    score |= predictions.summary(head, options.average)["views"][views]
    logits = predictions.video_logits(predictions.view_subsets()[views], head, options.average)
    rows = aggregate.per_class(predictions, logits)
    stem = f"{options.file.stem}_as_{views}_{head}_{options.average}"
    table, picture = (options.file.with_name(stem + end) for end in ("_classes.csv", "_confusion.png"))
    table.write_text(aggregate.as_csv(rows), encoding="utf-8")
    matrix = confusion_matrix(predictions.labels, logits.argmax(axis=1), len(predictions.class_names))
    save_png(picture, confusion_figure(matrix, predictions.class_names))
    return {
        **predictions.facts,
        "videos": len(predictions.labels),
        "scores": [score],
        "confused": aggregate.confused_pairs(predictions, logits),
        "classes": rows,
        "written": [str(table), str(picture)],
    }


def tell(found: dict[str, Any]) -> None:
    """Print what `overview` or `detail` found, for people."""
    average = found["scores"][0]["average"]
    print(f"{found.get('checkpoint', 'predictions')}, step {found.get('step')}, average of {average}")
    print(aggregate.as_text(found["scores"], found["videos"]))
    for reason in found.get("broken_videos", {}).values():
        print(f"BROKEN, not in the scores: {reason}")
    if left_out := aggregate.not_scored(found):
        print(f"not in the scores: {left_out}")
    if found.get("confused"):
        print("most confused (true class -> predicted class, videos):")
    for pair in found.get("confused", ()):
        print(f"  {pair['true']} -> {pair['predicted']}  {pair['videos']}")
    for file in found.get("written", ()):
        print(f"saved {file}")


if __name__ == "__main__":
    main()
