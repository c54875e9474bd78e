"""Tell what a trained model sees in videos, pictures and folders of them; of long videos, over time.

    python tools/predict.py holiday.mp4 --model runs/camera_motion
    python tools/predict.py clips/ 'films/*.mkv' --model runs/camera_motion --output predictions --json predictions.json

Exit status 1: a file could not be read (the others were); 2: a mistake in the command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from data_pipelines.io.atomic import write_json
from data_pipelines.io.errors import DataError
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.io.progress import progress
from lookupvivit.cli.arguments import device, one_line_errors, token_size, whole_number
from lookupvivit.evaluation.predictor import Prediction, Predictor
from lookupvivit.visualization.canvas import save_png
from lookupvivit.visualization.timeline import clock, prediction_sheet
from lookupvivit.weights.files import WeightsError, load_classifier

SCENES = 12  # lines of a timeline on the screen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder (with all below), a pattern")
    parser.add_argument("--model", required=True, type=Path, help="a run directory or its model.safetensors")
    parser.add_argument("--top", type=whole_number, default=5, metavar="K", help="classes to tell (5)")
    parser.add_argument("--views", type=_views, default=(4, 3), metavar="CLIPSxCROPS", help="of the whole video (4x3)")
    parser.add_argument(
        "--window",
        type=_seconds,
        metavar="SECONDS",
        help="from one clip of the timeline to the next "
        "(default: of videos longer than two clips, one clip after the other)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for a picture of every video")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for everything that is told")
    parser.add_argument(
        "--compressed-size", type=token_size, metavar="T,H,W", help="compressed tokens (the model's own)"
    )
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=whole_number, default=8, metavar="N", help="clips in one forward pass (8)")
    arguments = parser.parse_args()
    with one_line_errors("what was told already stands"):
        failed = predict(arguments)
    sys.exit(1 if failed else 0)


def predict(arguments: argparse.Namespace) -> int:
    """Look at every video and tell; how many could not be read."""
    model = load_classifier(arguments.model)
    clips, crops = arguments.views
    try:
        predictor = Predictor(
            model, clips, crops, arguments.window, arguments.compressed_size, arguments.batch, arguments.device
        )
    except (WeightsError, DataError) as error:
        raise WeightsError(f"{arguments.model}: {error}") from None
    found = expand_inputs(arguments.videos, separate_images=predictor.preprocess.sampling.frames == 1)
    if found.num_ignored:
        print(f"{found.num_ignored} files that are no videos or pictures ignored")
    told: list[dict[str, Any]] = []
    # Where the lines go to a file, they are progress enough.
    quiet = len(found.paths) < 2 or not sys.stdout.isatty()
    failed = 0
    with progress(found.paths.items(), unit="file", desc="predict", disable=quiet) as bar:
        for name, path in bar:
            try:
                prediction = predictor(path)
            except (DataError, OSError) as error:
                failed += 1
                tqdm.write(f"error: {error}", file=sys.stderr)
                told.append({"path": path, "error": str(error)})
                continue
            tqdm.write(summary(prediction, arguments.top))
            told.append(prediction.as_json(arguments.top))
            if arguments.output:
                save_png(arguments.output / f"{name}.png", picture(prediction, name, arguments))
    if failed:
        print(f"{failed} of {len(found.paths)} could not be read", file=sys.stderr)
    if arguments.output and failed < len(found.paths):
        print(f"pictures: {arguments.output}")
    if arguments.json:
        write_json(arguments.json, {"model": str(arguments.model), "views": f"{clips}x{crops}", "videos": told})
    return failed


def summary(prediction: Prediction, top: int) -> str:
    """The classes of a video, a line each, and the scenes of a long one."""
    timed = len(prediction.starts) > 0
    lines = [f"{prediction.path}  ({_length(prediction)})" + ("  views of the whole, mean over time" if timed else "")]
    for label in np.argsort(-prediction.probabilities, kind="stable")[:top]:
        shares = [prediction.probabilities[label], *([prediction.over_time[label]] if timed else ())]
        lines.append("".join(f"  {100 * share:5.1f} %" for share in shares) + f"  {prediction.class_names[label]}")
    scenes, tenths = prediction.scenes(), prediction.seconds < 60
    for start, end, name, probability in scenes[:SCENES]:
        span = f"{clock(start, tenths)} - {clock(end, tenths)}"
        lines.append(f"    {span:>17}  {name} ({100 * probability:.0f} %)")
    if len(scenes) > SCENES:
        lines.append(f"    ... {len(scenes) - SCENES} more; --output and --json have them all")
    return "\n".join(lines)


def picture(prediction: Prediction, name: str, arguments: argparse.Namespace) -> Any:
    """The sheet of one video, uint8 (height, width, 3)."""
    shown = prediction.leading(arguments.top)
    clips, crops = arguments.views
    caption = f"{_length(prediction)}  |  {arguments.model}  |  "
    timed = len(prediction.starts)
    caption += f"{timed} clips over time, 0 to 100 %" if timed else f"{clips}x{crops} views of the whole video"
    return prediction_sheet(
        prediction.frames,
        [prediction.class_names[label] for label in shown],
        prediction.over_time[shown],
        prediction.seconds,
        prediction.starts,
        prediction.ends,
        prediction.timeline[:, shown],
        name,
        caption,
    )


def _length(prediction: Prediction) -> str:
    return f"{prediction.seconds:.3g} s" if prediction.seconds < 60 else clock(prediction.seconds)


def _views(text: str) -> tuple[int, int]:
    clips, _, crops = text.partition("x")
    if not clips.isdecimal() or int(clips) < 1 or crops not in ("1", "3"):
        raise argparse.ArgumentTypeError(f"found {text!r}, must be clips x crops such as 4x3 or 1x1, of 1 or 3 crops")
    return int(clips), int(crops)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, must be a positive number of seconds")
    return seconds


if __name__ == "__main__":
    main()
