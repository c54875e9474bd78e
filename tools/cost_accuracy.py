"""Draw accuracy against GFLOPs and measured speed: one checkpoint at many compressed sizes, others beside it.

    python tools/cost_accuracy.py runs/k400_multires eval.clips=1 eval.crops=1
    python tools/cost_accuracy.py runs/k400_multires --sizes 8x5x5,8x7x7,8x9x9 --individual runs/k400_9x9x8 --everywhere
    python tools/cost_accuracy.py runs/imagenet_multires --image-sizes 224,288,384 --individual runs/imagenet_vit

The validation set, the preprocessing and the views are those of config.yaml in the run directory. Points that are
finished are not computed again by the same command.
"""

import argparse
from pathlib import Path

from lookupvivit.cli.arguments import one_line_errors
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory, best one of multi-resolution training")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a setting, such as eval.clips=1")
    parser.add_argument("--sizes", metavar="TxHxW,...", default="", help="compressed sizes (those it was trained at)")
    parser.add_argument(
        "--individual",
        metavar="RUN",
        action="append",
        default=[],
        help="another checkpoint, at its own size; may be given again",
    )
    parser.add_argument("--everywhere", action="store_true", help="individual checkpoints at all the sizes, too")
    parser.add_argument("--image-sizes", metavar="PIXELS,...", default="", help="sides of the input (the run's)")
    parser.add_argument("--cascade", metavar="TxHxW,TxHxW", default="", help="its sizes (the cheapest and the dearest)")
    parser.add_argument("--batch", type=int, help="views per call when speed is measured (eval.batch_size)")
    parser.add_argument("--rounds", type=int, default=25, help="of the measurement of speed (25)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for the results (cost_accuracy in the run)")
    arguments = parser.parse_intermixed_args()
    with one_line_errors("finished points are kept"):
        evaluate(arguments)


def evaluate(arguments: argparse.Namespace) -> None:
    """Understand the arguments and compute what they ask for."""
    run: Path = arguments.run
    config = load_config(run / "config.yaml", arguments.overrides)
    cascade = sizes("--cascade", arguments.cascade)
    if cascade and len(set(cascade)) != 2:
        raise ConfigError(f"--cascade: found {arguments.cascade!r}, must be two sizes, such as 4x2x2,4x6x6")

    from lookupvivit.accuracy_cost.evaluate import Request, cost_accuracy  # torch only for what can be understood

    request = Request(
        config.checkpoint or str(run),
        arguments.output or run / "cost_accuracy",
        tuple(map(str, map(Path, arguments.individual))),
        arguments.everywhere,
        sizes("--sizes", arguments.sizes),
        pixels(arguments.image_sizes),
        cascade or None,
        arguments.batch,
        arguments.rounds,
    )
    cost_accuracy(config, request)


def sizes(option: str, text: str) -> tuple[tuple[int, int, int], ...]:
    """4x2x2,4x3x3 as sizes."""
    found = []
    for word in filter(None, text.split(",")):
        numbers = word.strip().lower().split("x")
        if len(numbers) != 3 or not all(n.isdecimal() and int(n) for n in numbers):
            raise ConfigError(f"{option}: found {word!r}, must be t x h x w tokens, such as 4x3x3")
        t, h, w = map(int, numbers)
        found.append((t, h, w))
    return tuple(dict.fromkeys(found))


def pixels(text: str) -> tuple[int, ...]:
    """224,384 as numbers."""
    words = [word.strip() for word in text.split(",") if word]
    if wrong := [word for word in words if not word.isdecimal() or not int(word)]:
        raise ConfigError(f"--image-sizes: found {wrong[0]!r}, must be pixels, such as 224,288,384")
    return tuple(dict.fromkeys(map(int, words)))


if __name__ == "__main__":
    main()
