"""Few-shot transfer of a model to any labelled pictures, as in the paper's Table 9.

    python tools/few_shot.py --model runs/i21k_b16_10x10 --train data/pets/train --test data/pets/test

Both hold a folder of pictures per class. A linear probe is fitted in closed form to the model's frozen features of few
pictures per class, three times over, and tested on all of --test.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from data_pipelines.datasets.class_folders import read_class_folders
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.atomic import write_json
from data_pipelines.io.errors import DataError
from lookupvivit.cli.arguments import give_up, whole_number
from lookupvivit.evaluation.image_outputs import image_outputs
from lookupvivit.probing.few_shot import SEEDS, SHOTS, few_shot
from lookupvivit.weights.files import load_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a run directory, or a model.safetensors")
    parser.add_argument("--train", type=Path, required=True, help="pictures to choose from, a folder per class")
    parser.add_argument("--test", type=Path, required=True, help="pictures of the same classes to test on")
    parser.add_argument("--shots", type=whole_number, nargs="+", default=SHOTS, help="pictures per class (1 5 25)")
    parser.add_argument("--json", type=Path, help="write the accuracies of every seed to this file")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures in one forward pass (64)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read pictures")
    arguments = parser.parse_args()
    try:
        train = read_class_folders(arguments.train)
        test = read_class_folders(arguments.test, train.class_names)
        _check_enough(train, max(arguments.shots))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_classifier(arguments.model).to(device)
        features = [
            image_outputs(model, manifest, arguments.batch_size, device, arguments.workers, name).features
            for name, manifest in (("train", train), ("test", test))
        ]
        classes = len(train.class_names)
        scores = few_shot(features[0], train.labels, features[1], test.labels, classes, arguments.shots)
    except ValueError as error:  # of the data, the weights, or features that are not finite
        give_up(error)
    print(f"\n{classes} classes, {len(test)} pictures to test on, {features[0].shape[1]} features")
    for score in scores:
        each = ", ".join(f"{100 * accuracy:.1f}" for accuracy in score.accuracies)
        print(f"  {score.shots:3} per class: {100 * score.mean:5.1f} % +- {100 * score.spread:.1f}   (seeds: {each})")
    if arguments.json:
        accuracies = {score.shots: dict(zip(SEEDS, score.accuracies, strict=True)) for score in scores}
        told = {"model": str(arguments.model), "train": str(arguments.train), "test": str(arguments.test)}
        write_json(arguments.json, {**told, "classes": classes, "accuracies": accuracies})


def _check_enough(train: VideoManifest, shots: int) -> None:
    counts = np.bincount(train.labels)
    if counts.min() < shots:
        raise DataError(
            f"{train.source}: found {counts.min()} pictures of {train.class_names[counts.argmin()]!r}, must be at "
            f"least {shots}, the most shots asked for (--shots)"
        )


if __name__ == "__main__":
    main()
