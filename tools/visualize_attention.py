"""Show where a LookupViT looks in videos and pictures: sheets as in Fig. 1a, 6 and 7 of the paper, and films.

    python tools/visualize_attention.py holiday.mp4 --model runs/camera_motion --blocks 0,3
    python tools/visualize_attention.py holiday.mp4 --model runs/camera_motion --tokens 0,1,2 3,1,2 --heads 0,2
    python tools/visualize_attention.py photo.jpg --model runs/imagenet_multires --sizes 3,5,7,10 --image-sizes 224,384

Exit status 1: a file could not be read (the others were); 2: a mistake in the command.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lookupvivit
from data_pipelines.io.errors import DataError
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.cli.arguments import device, one_line_errors, whole_number
from lookupvivit.visualization.attention_grid import clip_sheet, size_text, still
from lookupvivit.visualization.attention_maps import AttentionMaps, attention_maps, check_choice
from lookupvivit.visualization.canvas import save_png
from lookupvivit.visualization.video_writer import save_gif, save_mp4
from lookupvivit.weights.files import WeightsError

FILM_SECONDS = 4  # at their own speed most clips are over before they are seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder (with all below), a pattern")
    parser.add_argument("--model", required=True, type=Path, help="a run directory or its model.safetensors")
    parser.add_argument("--output", type=Path, default=Path("attention"), metavar="DIR", help="(attention)")
    parser.add_argument("--blocks", type=_blocks, default=[0], metavar="0,5,11", help="from 0 on, or all (0)")
    parser.add_argument("--heads", type=_numbers, metavar="0,3", help="to take the mean of (all)")
    parser.add_argument(
        "--tokens",
        type=_token,
        nargs="+",
        metavar="T,H,W",
        help="compressed tokens, a row for each (the mean over all)",
    )
    parser.add_argument(
        "--sizes", type=_sizes, metavar="3,5,7", help="compressed sizes, k for k x k or TxHxW (the model's own)"
    )
    parser.add_argument(
        "--image-sizes",
        type=_numbers,
        metavar="224,384",
        help="sides of the model's input, pixels (its own); several for pictures only",
    )
    parser.add_argument("--start", type=float, metavar="SECONDS", help="where the clip begins (the clip in the middle)")
    parser.add_argument("--columns", type=whole_number, default=8, metavar="N", help="most frames on a sheet (8)")
    parser.add_argument("--fps", type=_rate, metavar="N", help=f"frames a second of films (lasting {FILM_SECONDS} s)")
    parser.add_argument("--gif", action="store_true", help="films as GIF, too")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="write the pictures there, too")
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    with one_line_errors("what was told already stands"):
        failed = visualize(arguments)
    sys.exit(1 if failed else 0)


def visualize(arguments: argparse.Namespace) -> int:
    """Draw every video; how many could not be read."""
    model = lookupvivit.load_model(arguments.model).to(arguments.device)
    try:
        preprocess = model.preprocess
        sizes = [_whole_size(size, model) for size in arguments.sizes or [None]]
        blocks = range(len(model.blocks)) if arguments.blocks == "all" else arguments.blocks
        for size in sizes:
            check_choice(model, blocks, arguments.heads, arguments.tokens, size)
        sides = arguments.image_sizes or [preprocess.crop]
        for side in sides:
            model.embedding.grid((preprocess.sampling.frames, side, side))
        if len(sides) > 1 and preprocess.sampling.frames > 1:
            raise ValueError(
                f"--image-sizes: found {len(sides)}, must be one for a model of videos, whose sheets "
                "have a column for every frame"
            )
    except (AttributeError, ValueError) as error:
        raise WeightsError(f"{arguments.model}: {error}") from None
    found = expand_inputs(arguments.videos, separate_images=preprocess.sampling.frames == 1)
    if found.num_ignored:
        print(f"{found.num_ignored} files that are no videos or pictures ignored")
    board = _board(arguments.tensorboard)
    failed = 0
    for (name, path), target in zip(found.paths.items(), targets(list(found.paths)), strict=True):
        try:
            clips = [preprocess.with_crop(side).timed_clip(path, arguments.start) for side in sides]
        except (DataError, OSError) as error:
            failed += 1
            of = "" if str(path) in str(error) else f"{path}: "  # a moment that it does not have, for example
            print(f"error: {of}{error}", file=sys.stderr, flush=True)
            continue
        looks = [
            attention_maps(model, to_model_input(frames), blocks, arguments.heads, arguments.tokens, size)
            for (frames, _), size in itertools.product(clips, sizes)
        ]
        print(draw(looks, model, name, arguments.output / target, clips[0][1], arguments, board), flush=True)
    if board:
        board.close()
    if failed:
        print(f"{failed} of {len(found.paths)} could not be read", file=sys.stderr)
    return failed


def targets(names: Sequence[str]) -> list[str]:
    """What to call the pictures: without the suffix of the video where that tells it from all others."""
    plain = [str(Path(name).with_suffix("")) for name in names]
    taken = Counter([*plain, *(name for name, short in zip(names, plain, strict=True) if name != short)])
    return [short if taken[short] == 1 else name for short, name in zip(plain, names, strict=True)]


def draw(
    looks: Sequence[AttentionMaps],
    model: nn.Module,
    name: str,
    target: Path,
    seconds: Sequence[float],
    arguments: argparse.Namespace,
    board: Any,
) -> str:
    """Write sheet and films of one clip; what was seen and where it lies, in a line."""
    guesses = [_guess(look, model) for look in looks]
    sides = [f"{look.frames.shape[1]} px, " if len(arguments.image_sizes or ()) > 1 else "" for look in looks]
    sizes = (
        None
        if len(looks) == 1
        else [
            f"{side}{size_text(look.compressed_size)}\n{guess}"
            for side, look, guess in zip(sides, looks, guesses, strict=True)
        ]
    )
    title = f"{name}\npredicted: {guesses[0]}" if len(looks) == 1 else name
    times = [f"{moment:.2f} s" for moment in seconds]
    alone = len(times) == 1
    if alone:
        sheet = still(looks, 0, title, "", sizes, height_max=3200)
    else:
        sheet = clip_sheet(looks, title, times, sizes, arguments.columns)
    # never the name of the video itself, which may lie in the output folder
    files = [target.with_name(f"{target.name}_attention.png")]
    save_png(files[0], sheet)
    if board:
        board.add_image(f"attention/{name}", sheet, dataformats="HWC")
    if not alone:
        film = [still(looks, index, title, time, sizes) for index, time in enumerate(times)]
        fps = arguments.fps or min(25, max(1, len(film) / FILM_SECONDS))
        for suffix, save in {".mp4": save_mp4, **({".gif": save_gif} if arguments.gif else {})}.items():
            files.append(target.with_name(f"{target.name}_attention{suffix}"))
            save(files[-1], film, fps)
        for index, picture in enumerate(film if board else ()):  # TensorBoard has a slider over the steps
            board.add_image(f"attention_film/{name}", picture, index, dataformats="HWC")
    return f"{name}: {'; '.join(guesses)}  ->  {', '.join(map(str, files))}"


def _guess(look: AttentionMaps, model: nn.Module) -> str:
    """The most probable class, with its probability."""
    label = int(look.probabilities.argmax())
    names, percent = model.description.get("class_names"), 100 * look.probabilities[label]
    return f"{names[label] if names else f'class {label}'} ({percent:.{0 if percent >= 1 else 2}f}\u00a0%)"


def _whole_size(size: tuple[int, ...] | None, model: nn.Module) -> tuple[int, ...] | None:
    """(t, h, w) of a size that may be k alone: k x k, over time the model's own number."""
    return (model.compressed_size[0], *size * 2) if size and len(size) == 1 else size


def _board(folder: Path | None) -> Any:
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def _numbers(text: str) -> list[int]:
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"found {text!r}, must be numbers from 0 on with commas between, such as 0,3")
    return [int(part) for part in text.split(",")]


def _blocks(text: str) -> list[int] | str:
    return text if text == "all" else _numbers(text)


def _token(text: str) -> tuple[int, ...]:
    return tuple(_numbers(text))


def _sizes(text: str) -> list[tuple[int, ...]]:
    sizes = [size.split("x") for size in text.split(",")]
    if any(len(size) not in (1, 3) or not all(n.isdecimal() and int(n) for n in size) for size in sizes):
        raise argparse.ArgumentTypeError(f"found {text!r}, must be sizes such as 3,5 or 4x5x5,8x5x5")
    return [tuple(map(int, size)) for size in sizes]


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = float("nan")
    if not 0.1 <= rate <= 240:
        raise argparse.ArgumentTypeError(f"found {text!r}, must be frames a second from 0.1 to 240")
    return rate


if __name__ == "__main__":
    main()
