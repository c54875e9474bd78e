"""Draw where a LookupViT attends in videos and images: figures as in Fig. 1a, 6 and 7 of the paper, and videos."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lookupvivit
from data_pipelines.io.errors import DataError
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.io.real_paths import require_not_among
from data_pipelines.io.text import one_line
from lookupvivit.cli.arguments import (
    add_device_option,
    add_output_option,
    add_run_option,
    output_folder,
    positive_int,
    token_size,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.sizes import Size

if TYPE_CHECKING:
    from data_pipelines.preprocess import Preprocess
    from lookupvivit.visualization.attention_maps import AttentionMaps


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("the files written so far are complete"):
        failed = visualize(arguments)
    sys.exit(1 if failed else 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "files, folders (searched recursively) or patterns"
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help=help)
    add_run_option(parser)
    add_output_option(parser, "the figures and videos", default="attention")
    help = "block numbers from 0, or all (default: 0)"
    parser.add_argument("--blocks", type=_blocks, default=[0], metavar="0,5,11", help=help)
    help = "attention heads to average over (default: all)"
    parser.add_argument("--heads", type=_integers, metavar="0,3", help=help)
    help = "positions of compressed tokens, one row for each (default: one row, the mean over all tokens)"
    parser.add_argument("--tokens", type=_position, nargs="+", metavar="t,h,w", help=help)
    help = "compressed sizes (default: the model's own)"
    parser.add_argument("--sizes", type=_sizes, metavar="TxHxW,...", help=help)
    help = "input sizes in pixels; several for image models only (default: the model's own)"
    parser.add_argument("--image-sizes", type=_integers, metavar="224,384", help=help)
    help = "start of the clip (default: the central clip)"
    parser.add_argument("--start", type=float, metavar="SECONDS", help=help)
    help = "maximal number of frames in a figure (default: 8)"
    parser.add_argument("--columns", type=positive_int, default=8, metavar="N", help=help)
    help = "frames per second of the videos (default: slow enough to watch)"
    parser.add_argument("--fps", type=_fps, metavar="N", help=help)
    parser.add_argument("--gif", action="store_true", help="also write each video as GIF")
    help = "also write all images to this TensorBoard folder"
    parser.add_argument("--tensorboard", type=output_folder, metavar="FOLDER", help=help)
    add_device_option(parser)
    return parser.parse_args()


@dataclass(frozen=True)
class Selection:
    """What to draw, checked against the model."""

    blocks: Sequence[int]
    sizes: Sequence[Size | None]  # compressed sizes
    preprocesses: Sequence[Preprocess]  # one per image size


def visualize(arguments: argparse.Namespace) -> int:
    """Draw every video; the number of files that could not be read."""
    from data_pipelines.transforms.normalization import to_model_input
    from lookupvivit.visualization.attention_files import AttentionWriter, output_stems, predicted_class
    from lookupvivit.visualization.attention_maps import attention_maps

    model: Any = lookupvivit.load_model(arguments.run).to(arguments.device)
    selection = select(arguments, model)
    is_image_model = selection.preprocesses[0].sampling.frames == 1
    inputs = expand_inputs(arguments.videos, separate_images=is_image_model)
    if inputs.num_ignored:
        print(f"{inputs.num_ignored} files ignored that are neither videos nor images")
    board = None
    if arguments.tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(arguments.tensorboard))
    class_names = model.description.get("class_names")
    writer = AttentionWriter(class_names, arguments.columns, arguments.fps, arguments.gif, board)
    failed = 0
    stems = output_stems(list(inputs.paths))
    outputs = [arguments.output / f"{stem}_attention{suffix}" for stem in stems for suffix in (".png", ".mp4", ".gif")]
    require_not_among(outputs, inputs.paths.values())
    for (name, path), stem in zip(inputs.paths.items(), stems, strict=True):
        try:
            clips = [preprocess.timed_clip(path, arguments.start) for preprocess in selection.preprocesses]
        except (DataError, OSError) as error:
            failed += 1
            prefix = "" if str(path) in str(error) else f"{path}: "  # an invalid --start names no file
            print(f"error: {one_line(prefix + str(error))}", file=sys.stderr, flush=True)
            continue
        maps: list[AttentionMaps] = [
            attention_maps(model, to_model_input(frames), selection.blocks, arguments.heads, arguments.tokens, size)
            for (frames, _), size in itertools.product(clips, selection.sizes)
        ]
        _, seconds = clips[0]
        files = writer.write(maps, name, arguments.output / stem, seconds)
        classes = "; ".join(predicted_class(one, class_names) for one in maps)
        print(f"{one_line(name)}: {classes}  ->  {one_line(', '.join(map(str, files)))}", flush=True)
    if board:
        board.close()
    if failed:
        print(f"{failed} of {len(inputs.paths)} files could not be read", file=sys.stderr)
    return failed


def select(arguments: argparse.Namespace, model: Any) -> Selection:
    """Check the arguments against the model, before any file is read.

    Raises:
        WeightsError: the model does not have what they name.
    """
    from lookupvivit.visualization.attention_maps import check_selection
    from lookupvivit.weights.files import WeightsError

    try:
        preprocess = lookupvivit.preprocess_of(model)
        sizes = arguments.sizes or [None]
        blocks = range(len(model.blocks)) if arguments.blocks == "all" else arguments.blocks
        for size in sizes:
            check_selection(model, blocks, arguments.heads, arguments.tokens, size)
        image_sizes = arguments.image_sizes or [preprocess.crop]
        for side in image_sizes:
            model.embedding.grid((preprocess.sampling.frames, side, side))
        if len(image_sizes) > 1 and preprocess.sampling.frames > 1:
            raise ValueError(f"--image-sizes: found {len(image_sizes)} sizes, expected one for a video model")
    except ValueError as error:
        raise WeightsError(f"{arguments.run}: {error}") from None
    return Selection(blocks, sizes, [preprocess.with_crop(side) for side in image_sizes])


# Argument types


def _integers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected integers separated by commas, such as 0,3")
    return [int(part) for part in parts]


def _blocks(text: str) -> list[int] | str:
    return text if text == "all" else _integers(text)


def _position(text: str) -> tuple[int, ...]:
    return tuple(_integers(text))


def _sizes(text: str) -> list[Size]:
    return [token_size(part) for part in text.split(",")]


def _fps(text: str) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = math.nan
    if not 0.1 <= fps <= 240:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected frames per second from 0.1 to 240")
    return fps


if __name__ == "__main__":
    main()
