"""Write captions of images with a trained captioner, or score its captions on a dataset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from data_pipelines.io.atomic import write_json
from data_pipelines.io.growing_json import growing_json
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.io.output_paths import require_output_folder
from data_pipelines.io.progress import progress
from data_pipelines.io.real_paths import require_not_among
from data_pipelines.io.text import one_line
from lookupvivit.cli.arguments import (
    add_batch_size_option,
    add_compressed_size_option,
    add_device_option,
    add_json_file_option,
    add_output_option,
    add_run_option,
    non_negative_int,
    positive_int,
)
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.sizes import format_size

if TYPE_CHECKING:
    from lookupvivit.captioning.generation import CaptionGenerator


NUM_BEAMS = 4


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    from lookupvivit.captioning.generation import CaptionGenerator
    from lookupvivit.weights.files import weights_file

    with one_line_errors("captions printed so far are valid"):
        if arguments.score:
            arguments.output = arguments.output or weights_file(arguments.run).parent / "predictions"
            require_output_folder(arguments.output)
        generator = CaptionGenerator.load(
            arguments.run,
            arguments.device,
            arguments.beams,
            arguments.length_penalty,
            arguments.compressed_size,
        )
        num_failed = score(generator, arguments) if arguments.score else write(generator, arguments)
    sys.exit(1 if num_failed else 0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="a file, a folder (searched recursively) or a glob")
    add_run_option(parser)
    parser.add_argument("--score", type=Path, metavar="DATASET", help="score the captions of this dataset instead")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), help="with --score: split of Karpathy's file (default: test)"
    )
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="with --score: folder that image paths start from")
    parser.add_argument(
        "--beams",
        type=positive_int,
        default=NUM_BEAMS,
        metavar="N",
        help=f"beams of the search; 1 is greedy search (default: {NUM_BEAMS})",
    )
    parser.add_argument(
        "--length-penalty",
        type=float,
        default=1.0,
        metavar="P",
        help="divide log probabilities by the number of tokens to the power of P (default: 1)",
    )
    add_compressed_size_option(parser, default="the encoder's own")
    add_output_option(parser, "figures of the images; with --score, all results (default: predictions/ in the run)")
    add_json_file_option(parser, "the captions")
    add_device_option(parser)
    add_batch_size_option(parser, default=16, unit="images")
    parser.add_argument(
        "--workers", type=non_negative_int, default=0, help="with --score: processes that read images (default: 0)"
    )
    arguments = parser.parse_args()
    if bool(arguments.images) == bool(arguments.score):
        parser.error("expected either images or --score DATASET")
    for name in ("split", "root"):
        if getattr(arguments, name) is not None and not arguments.score:
            parser.error(f"argument --{name}: expected --score as well")
    if arguments.json and arguments.score:
        parser.error("argument --json: not allowed with --score, which writes captions to the folder of --output")
    return arguments


def write(generator: CaptionGenerator, arguments: argparse.Namespace) -> int:
    """Caption files; returns the number of files that could not be read."""
    from lookupvivit.captioning.figures import caption_grid, middle_frames
    from lookupvivit.captioning.generation import caption_files
    from lookupvivit.visualization.canvas import save_png

    inputs = expand_inputs(arguments.images, separate_images=generator.preprocess.sampling.frames == 1)
    if inputs.num_ignored:
        print(f"{inputs.num_ignored} files ignored, which are neither images nor videos")
    paths = list(inputs.paths.values())
    figures = [arguments.output / f"captions_{n:04d}.png" for n in range(1, len(paths) + 1)] if arguments.output else []
    require_not_among([*figures, *filter(None, [arguments.json])], paths)
    report: dict[str, Any] = {**settings_json(arguments), "captions": []}
    num_figures = 0
    bar = progress(total=len(paths), unit="file", desc="caption", disable=not sys.stdout.isatty())
    with growing_json(arguments.json, report) as save, bar:
        for batch in caption_files(generator, paths, arguments.batch_size):
            report["captions"] += batch.as_json()
            save()
            for error in batch.errors.values():
                tqdm.write(f"error: {one_line(error)}", file=sys.stderr)
            for path, caption in batch.captions.items():
                tqdm.write(one_line(f"{path}: {caption}"))
            sys.stdout.flush()
            if arguments.output and batch.captions:
                figure = caption_grid(middle_frames(batch.clips), list(batch.captions.values()))
                save_png(figures[num_figures], figure)
                num_figures += 1
            bar.update(len(batch.captions) + len(batch.errors))
    num_failed = sum("error" in result for result in report["captions"])
    if num_failed:
        print(f"{num_failed} of {len(paths)} files could not be read", file=sys.stderr)
    if num_figures:
        print(f"saved {num_figures} figures in {arguments.output}")
    return num_failed


def score(generator: CaptionGenerator, arguments: argparse.Namespace) -> int:
    """Score the captions of a dataset; returns the number of images that could not be read."""
    from lookupvivit.captioning.scoring import evaluate_captions, read_captioned_dataset
    from lookupvivit.visualization.canvas import save_png

    manifest, name = read_captioned_dataset(arguments.score, arguments.split, arguments.root)
    evaluation = evaluate_captions(generator, manifest, arguments.batch_size, arguments.workers)
    file = arguments.output / result_name(name, arguments)
    write_json(file.with_name(f"{file.name}.json"), {**settings_json(arguments), "split": name, **evaluation.as_json()})
    cider = 100 * evaluation.scores["CIDEr"]
    figure = evaluation.figure(f"{name}: CIDEr {cider:.1f}; each image with its caption (and a reference)")
    save_png(file.with_name(f"{file.name}.png"), figure)
    scores = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in evaluation.scores.items())
    print(f"{len(evaluation.captions)} images, {search_name(arguments)}: {scores}   (times 100; CIDEr is CIDEr-D)")
    print(f"saved {file}.json and .png")
    return len(evaluation.failed)


def settings_json(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the captions depend on."""
    size = arguments.compressed_size
    return {
        "model": str(arguments.run),
        "beams": arguments.beams,
        "length_penalty": arguments.length_penalty,
        "compressed_size": list(size) if size else None,
    }


def result_name(dataset: str, arguments: argparse.Namespace) -> str:
    """Name of the result files; settings other than the defaults are part of it."""
    parts = ["captions", dataset]
    if arguments.compressed_size:
        parts.append(format_size(arguments.compressed_size))
    if arguments.beams != NUM_BEAMS:
        parts.append("greedy" if arguments.beams == 1 else f"{arguments.beams}_beams")
    if arguments.length_penalty != 1:
        parts.append(f"penalty_{arguments.length_penalty:g}")
    return "_".join(parts)


def search_name(arguments: argparse.Namespace) -> str:
    if arguments.beams == 1:
        return "greedy search"
    return f"beam search ({arguments.beams} beams, length penalty {arguments.length_penalty:g})"


if __name__ == "__main__":
    main()
