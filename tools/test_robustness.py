"""Test a model on ImageNet-A, -R, -O and -C, in the shape of the paper's Tables 2 and 6 and its Fig. 4.

    python tools/test_robustness.py --model runs/i1k_b16_10x10 --imagenet data/imagenet/val \\
        --imagenet-a data/imagenet-a --imagenet-r data/imagenet-r \\
        --imagenet-o data/imagenet-o --imagenet-c data/imagenet-c

What is not given or not there is told so, and never averaged over. Predictions of every picture are saved set by set: a
second call goes on from them, and one for other sets adds theirs to the tables and to robustness.json. ImageNet's
validation pictures are needed for ImageNet-O and for the feature deviation.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from data_pipelines.io.atomic import write_json
from lookupvivit.cli.arguments import give_up
from lookupvivit.robustness.figures import deviation_picture
from lookupvivit.robustness.suite import PUBLISHED_SIZES, Suite
from lookupvivit.visualization.canvas import save_png
from lookupvivit.weights.files import load_classifier, weights_file

SETS = {"imagenet_c": "ImageNet-C", "imagenet_o": "ImageNet-O", "imagenet_r": "ImageNet-R", "imagenet_a": "ImageNet-A"}
FIGURES = {"imagenet_c": "accuracy", "imagenet_o": "aupr", "imagenet_r": "accuracy", "imagenet_a": "accuracy"}
REPORT = "robustness.json"


def main() -> None:
    arguments = parse()
    try:
        output = arguments.output or weights_file(arguments.model).parent / "predictions" / "robustness"
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_classifier(arguments.model).to(device)
        suite = Suite(model, arguments.model, output, arguments.batch_size, device, arguments.workers)
        found = measure(suite, arguments)
    except ValueError as error:  # of the data, the weights, or outputs that are not finite
        give_up(error)
    report = {**kept(output / REPORT, suite), **found}
    print(tables(str(arguments.model), report))
    if others := [SETS[name] for name in report if name not in found]:
        print(f"from earlier calls: {', '.join(others)}")
    write_json(output / REPORT, {"model": str(arguments.model), "weights": suite.fingerprint, **report})
    print(f"saved {output / REPORT} and, beside it, the predictions of every picture")
    if "mce" in (corruptions := found.get("imagenet_c", {})) and "deviations" in corruptions:
        save_png(output / "feature_deviation.png", deviation_picture({str(arguments.model): suite.deviations()}))
        print(f"saved {output / 'feature_deviation.png'}")


def kept(file: Path, suite: Suite) -> dict[str, Any]:
    """Figures of the same weights from earlier calls, by set."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or nothing that could be kept
        return {}
    same = isinstance(report, dict) and report.get("weights") == suite.fingerprint
    return {name: report[name] for name in SETS if name in report} if same else {}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a run directory, or a model.safetensors")
    parser.add_argument("--imagenet", type=Path, help="ImageNet's validation pictures, a folder per class")
    for name in SETS.values():
        parser.add_argument(f"--{name.lower()}", type=Path, help=f"the folder of {name}")
    parser.add_argument("--output", type=Path, help="where results go; by default predictions/robustness of the run")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures in one forward pass (64)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read pictures")
    arguments = parser.parse_args()
    if all(getattr(arguments, name) is None for name in SETS):
        parser.error("give the folder of at least one set, such as --imagenet-a DIR")
    if arguments.imagenet_o is not None and arguments.imagenet is None:
        parser.error("--imagenet-o needs --imagenet DIR: its pictures are to be told from those")
    for name in ("imagenet", *SETS):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name.replace('_', '-')}: found no folder {folder}")
    return arguments


def measure(suite: Suite, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of every set that is given, by set."""
    report: dict[str, Any] = {}
    for name in ("imagenet_a", "imagenet_r"):
        if (folder := getattr(arguments, name)) is not None:
            report[name] = suite.subset(name, folder)
    if arguments.imagenet_o is not None:
        report["imagenet_o"] = suite.outliers(arguments.imagenet_o, arguments.imagenet)
    if arguments.imagenet_c is not None:
        report["imagenet_c"] = suite.corruptions(arguments.imagenet_c, arguments.imagenet)
    return report


def tables(model: str, report: dict[str, Any]) -> str:
    """Table 2, and Table 6 with the single corruptions, in per cent."""
    width = max(len(model), 20)
    lines = ["", f"{'Table 2':{width}}" + "".join(f"{name:>13}" for name in SETS.values())]
    figures = (percent(report[name].get(key)) if name in report else "not given" for name, key in FIGURES.items())
    lines += [f"{model:{width}}" + "".join(f"{figure:>13}" for figure in figures), ""]
    lines.append("accuracy; of ImageNet-O the area under the precision-recall curve")
    for name, size in PUBLISHED_SIZES.items():
        if name in report and (found := report[name]["pictures"]) != size:
            lines.append(f"NOTE: {SETS[name]} has {size:,} pictures as published, {found:,} were found")
    if "imagenet_c" in report:
        lines += ["", *corruption_table(model, width, report["imagenet_c"])]
    return "\n".join([*lines, ""])


def corruption_table(model: str, width: int, report: dict[str, Any]) -> list[str]:
    """Table 6, a row per corruption below."""
    columns = [*(f"sev{level}" for level in range(1, 6)), "Avg.", "mCE"]
    whole = [*report.get("by_severity", [None] * 5), report.get("accuracy"), report.get("mce")]
    lines = [f"{'Table 6':{width}}" + "".join(f"{name:>11}" for name in columns)]
    lines.append(f"{model:{width}}" + "".join(f"{percent(value):>11}" for value in whole))
    for name, row in report["accuracies"].items():
        mean = None if None in row else sum(row) / len(row)
        cells = [*row, mean, report.get("errors", {}).get(name)]
        lines.append(f"  {name:{width - 2}}" + "".join(f"{percent(value):>11}" for value in cells))
    if "deviations" in report:
        lines += ["", f"{'Fig. 4b':{width}}" + "".join(f"{name:>11}" for name in columns[:5])]
        rows = list(report["deviations"].values())
        means = [None if None in cells else sum(cells) / len(cells) for cells in zip(*rows, strict=True)]
        shown = ("not found" if mean is None else f"{mean:.3f}" for mean in means)
        lines.append(f"{'feature deviation':{width}}" + "".join(f"{text:>11}" for text in shown))
    absent = {
        name: [level for level, share in enumerate(row, start=1) if share is None]
        for name, row in report["accuracies"].items()
        if None in row
    }
    if absent:
        places = "; ".join(f"{name} {', '.join(map(str, levels))}" for name, levels in absent.items())
        lines.append(f"NOT FOUND: {places}. No mean is taken over what is left")
    if others := report["other_folders"]:
        lines.append(f"NOTE: folders of other names, not looked at: {', '.join(others)}")
    return lines


def percent(share: float | None) -> str:
    """A share as the paper prints it."""
    return "not found" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
