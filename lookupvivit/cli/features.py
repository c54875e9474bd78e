"""Store features of videos and images: what the classifiers of a trained model read, and tokens of chosen blocks."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from data_pipelines.io.cores import num_workers
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_compressed_size_option,
    add_device_option,
    add_run_option,
    non_negative_int,
    output_folder,
    positive_seconds,
    view_counts,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors

LAST = (-1,)


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("the same command continues"):
        failed = store_features(arguments)
    sys.exit(1 if failed else 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    help = "files, folders (searched recursively) or patterns; with --cfg: settings, such as data.root=data/mine"
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help=help)
    add_run_option(parser)
    help = "folder for the features, one .npz file per video"
    parser.add_argument("--output", type=output_folder, required=True, metavar="FOLDER", help=help)
    help = "read the videos and labels of this configuration's dataset: a YAML file, or a name such as k400_9x9x8"
    parser.add_argument("--cfg", metavar="FILE", help=help)
    help = "with --cfg: which part of the dataset (default: val)"
    parser.add_argument("--split", choices=("train", "val"), help=help)
    help = "views of a video (default: 1x1)"
    parser.add_argument("--views", type=view_counts, default=(1, 1), metavar="CLIPSxCROPS", help=help)
    help = "clips that cover the whole video instead, with this time between their starts"
    parser.add_argument("--window", type=positive_seconds, metavar="SECONDS", help=help)
    help = "also store the tokens after these blocks: numbers from 0, last, or all"
    parser.add_argument("--blocks", type=_blocks, default=(), metavar="0,5,11", help=help)
    parser.add_argument("--half", action="store_true", help="store tokens as float16")
    add_compressed_size_option(parser)
    add_device_option(parser)
    add_batch_size_option(parser, default=8)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    help = "processes that decode (default: one per CPU, shared by the ranks of this machine)"
    parser.add_argument("--workers", type=non_negative_int, default=max(1, num_workers() // ranks), help=help)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # added by the deepspeed launcher
    arguments = parser.parse_intermixed_args()
    if not arguments.videos and not arguments.cfg:
        parser.error("expected VIDEO or --cfg FILE")
    if arguments.split and not arguments.cfg:
        parser.error("argument --split: expected --cfg as well")
    return arguments


def store_features(arguments: argparse.Namespace) -> int:
    """Store the features of this rank's videos; the number of those that could not be read."""
    from lookupvivit.features.extract import extract_features
    from lookupvivit.features.extractor import depth_of
    from lookupvivit.weights.files import WeightsError, load_classifier

    model = load_classifier(arguments.run)
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    try:
        extraction = extract_features(
            model,
            **_videos(arguments, verbose=rank == 0),
            output=arguments.output,
            views=arguments.views,
            window=arguments.window,
            blocks=range(depth_of(model)) if arguments.blocks == "all" else arguments.blocks,
            half=arguments.half,
            compressed_size=arguments.compressed_size,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            device=arguments.device,
            rank=rank,
            world_size=world_size,
        )
    except WeightsError as error:
        raise WeightsError(f"{arguments.run}: {error}") from None
    if extraction.num_ignored and rank == 0:
        print(f"{extraction.num_ignored} files ignored that are neither videos nor images")
    for reason in extraction.failed.values():
        print(f"error: {reason}", file=sys.stderr)
    who = f"rank {rank} of {world_size}: " if world_size > 1 else ""
    earlier = f", {extraction.num_finished} of them by an earlier command" if extraction.num_finished else ""
    count = len(extraction.files)
    print(f"{who}{count} {'video' if count == 1 else 'videos'} in {arguments.output}{earlier}")
    if extraction.failed:
        print(f"{who}{len(extraction.failed)} videos could not be read", file=sys.stderr)
    return len(extraction.failed)


def _videos(arguments: argparse.Namespace, verbose: bool) -> dict[str, Any]:
    """Which videos, as arguments of `extract_features`."""
    if not arguments.cfg:
        return {"videos": arguments.videos}
    from functools import partial

    from data_pipelines.video.reader import open_video
    from lookupvivit.config.loading import load_config
    from lookupvivit.training.manifests import present_videos

    config, split = load_config(arguments.cfg, arguments.videos), arguments.split or "val"
    data = config.data
    open_reader = partial(open_video, backend=data.backend, timeout=data.decode_seconds, max_pixels=data.max_pixels)
    return {"videos": present_videos(config, split, verbose), "split": split, "open_reader": open_reader}


def _blocks(text: str) -> str | tuple[int, ...]:
    """Numbers of blocks, or "all"."""
    if text in ("all", "last"):
        return LAST if text == "last" else text
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected numbers from 0 such as 0,5,11, last, or all")
    return tuple(map(int, numbers))


if __name__ == "__main__":
    main()
