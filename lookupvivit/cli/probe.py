"""Fit linear, k-NN, few-shot and attentive probes to stored features of a dataset."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.growing_json import growing_json
from lookupvivit.cli.arguments import add_device_option, add_json_file_option, positive_int
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.probing import PROBES
from lookupvivit.probing.few_shot import SHOTS

if TYPE_CHECKING:
    from lookupvivit.features.folders import FeatureSet
    from lookupvivit.probing.trained import Recipe


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("the scores printed so far are valid"):
        probe(arguments)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "folder of training features, written by tools/features.py --cfg"
    parser.add_argument("features", type=Path, metavar="FEATURES", help=help)
    parser.add_argument("--test", type=Path, required=True, metavar="FEATURES", help="folder of test features")
    help = "which probes (default: all; attentive if tokens are stored)"
    parser.add_argument("--probes", nargs="+", choices=PROBES, metavar="PROBE", help=help)
    help = "pooled features to use, such as compressed_features (default: all)"
    parser.add_argument("--streams", nargs="+", metavar="NAME", help=help)
    help = f"training examples per class of the few-shot probes (default: {' '.join(map(str, SHOTS))})"
    parser.add_argument("--shots", type=positive_int, nargs="+", default=SHOTS, metavar="N", help=help)
    for option in ("--learning-rates", "--weight-decays"):
        help = f"{option[2:].replace('-', ' ')} of the linear and attentive probes (default: of each probe)"
        parser.add_argument(option, type=_rate, nargs="+", metavar="X", help=help)
    help = "epochs of the linear and attentive probes (default: of each probe)"
    parser.add_argument("--epochs", type=positive_int, metavar="N", help=help)
    help = "seed of the choice of held-out features and of the training (default: 0)"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=help)
    add_json_file_option(parser, "the scores of all settings")
    add_device_option(parser)
    return parser.parse_args()


def probe(arguments: argparse.Namespace) -> None:
    """Fit the probes, print the table and write the JSON file."""
    from dataclasses import asdict

    from lookupvivit.features.folders import load_features
    from lookupvivit.probing.feature_probes import ATTENTIVE, LINEAR, probe_features, token_grids

    train, test = load_features(arguments.features), load_features(arguments.test)
    has_tokens = token_grids(train) and token_grids(test)
    probes = arguments.probes or [name for name in PROBES if name != "attentive" or has_tokens]
    scores = probe_features(
        train,
        test,
        probes,
        streams=arguments.streams,
        shots=arguments.shots,
        linear=_recipe(LINEAR, arguments),
        attentive=_recipe(ATTENTIVE, arguments),
        seed=arguments.seed,
        device=arguments.device,
    )
    report = {
        "train": str(arguments.features),
        "test": str(arguments.test),
        "videos": {"train": len(train.names), "test": len(test.names)},
        "classes": len(train.class_names),
        "seed": arguments.seed,
        "probes": [],
    }
    with growing_json(arguments.json, report) as save:
        print(_sizes(train, test))
        print(f"\n{'probe':20} {'setting':22} {'top-1 %':>7}   95 % interval")
        for score in scores:
            low, high = score.interval
            print(f"{score.probe:20} {score.setting:22} {score.top1:7.1f}   {low:.1f} to {high:.1f}", flush=True)
            report["probes"].append(asdict(score))
            save()
    if "few-shot" in probes and (missing := _missing_shots(train, arguments.shots)):
        print(f"not fitted: {', '.join(map(str, missing))} per class, because a class has fewer training features")


def _sizes(train: FeatureSet, test: FeatureSet) -> str:
    widths = ", ".join(f"{name} {values.shape[1]}" for name, values in train.streams.items())
    return (
        f"{len(train.names)} training and {len(test.names)} test features of {len(train.class_names)} classes; {widths}"
    )


def _missing_shots(train: FeatureSet, shots: list[int]) -> list[int]:
    import numpy as np

    smallest = np.bincount(train.labels, minlength=len(train.class_names)).min()
    return [count for count in shots if count > smallest]


def _recipe(default: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with what the options replace."""
    from dataclasses import replace

    from lookupvivit.probing.trained import Setting

    rates = arguments.learning_rates or dict.fromkeys(setting.learning_rate for setting in default.settings)
    decays = arguments.weight_decays or dict.fromkeys(setting.weight_decay for setting in default.settings)
    settings = Setting.grid(list(rates), list(decays))
    return replace(default, settings=settings, epochs=arguments.epochs or default.epochs, seed=arguments.seed)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of at least 0")
    return rate


if __name__ == "__main__":
    main()
