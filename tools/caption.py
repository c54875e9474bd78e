"""Write captions of pictures with a trained captioner, or score its captions of a whole split.

    python tools/caption.py holiday.jpg photos/ --model runs/coco_captions --output captions --json captions.json
    python tools/caption.py --model runs/coco_captions --score data/coco --split test

--score takes the folder of COCO with Karpathy's split, that file itself, or a list of images and captions in JSON, JSON
lines or CSV. Exit status 1: a file could not be read (the others were); 2: a mistake in the command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_pipelines.datasets.captions import KARPATHY, LISTS, SPLITS, CaptionManifest, read_caption_list, read_karpathy
from data_pipelines.datasets.clips import MultiViewDataset
from data_pipelines.datasets.manifest import on_disk
from data_pipelines.io.atomic import write_json
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.io.listing import sorted_entries
from data_pipelines.io.progress import progress
from data_pipelines.loader import eval_loader
from lookupvivit.captioning.figures import caption_sheet
from lookupvivit.captioning.generation import CaptionWriter, write_all
from lookupvivit.captioning.metrics import caption_scores
from lookupvivit.captioning.task import karpathy_file
from lookupvivit.cli.arguments import device, one_line_errors, token_size, whole_number
from lookupvivit.visualization.canvas import save_png
from lookupvivit.weights.files import weights_file

BEAMS = 4
ON_A_SHEET = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="a file, a folder (with all below), a pattern")
    parser.add_argument("--model", required=True, type=Path, help="a run directory or its model.safetensors")
    parser.add_argument("--score", type=Path, metavar="SET", help="folder of dataset_coco.json, or a list of captions")
    parser.add_argument("--split", choices=tuple(SPLITS), help="of a file of Karpathy's format (test)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the images of a list are (the list's folder)")
    parser.add_argument("--beams", type=whole_number, default=BEAMS, metavar="N", help="beam search; 1: greedy (4)")
    parser.add_argument(
        "--length-penalty",
        type=float,
        default=1.0,
        metavar="P",
        help="scores are log probabilities over the number of tokens to the power of P (1)",
    )
    parser.add_argument(
        "--compressed-size", type=token_size, metavar="T,H,W", help="compressed tokens (the encoder's own)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for sheets of pictures with their captions; "
        "with --score, for everything (predictions/ in the run)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the captions")
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=whole_number, default=16, metavar="N", help="pictures in one forward pass (16)")
    parser.add_argument("--workers", type=int, default=0, help="with --score: processes that read pictures (0)")
    arguments = parser.parse_args()
    if bool(arguments.pictures) == bool(arguments.score):
        parser.error("give pictures to write captions of, or --score SET, one of both")
    for name in ("split", "root"):
        if getattr(arguments, name) is not None and not arguments.score:
            parser.error(f"--{name}: goes with --score")
    if arguments.json and arguments.score:
        parser.error("--json: with --score, the captions go into the folder of --output")
    with one_line_errors("nothing was written"):
        writer = CaptionWriter.load(
            arguments.model, arguments.device, arguments.beams, arguments.length_penalty, arguments.compressed_size
        )
        failed = score(writer, arguments) if arguments.score else write(writer, arguments)
    sys.exit(1 if failed else 0)


def write(writer: CaptionWriter, arguments: argparse.Namespace) -> int:
    """Captions of files; how many could not be read."""
    found = expand_inputs(arguments.pictures, separate_images=writer.preprocess.sampling.frames == 1)
    if found.num_ignored:
        print(f"{found.num_ignored} files that are no pictures or videos ignored")
    told: list[dict[str, Any]] = []
    sheets = 0
    with progress(total=len(found.paths), unit="file", desc="caption", disable=not sys.stdout.isatty()) as bar:
        for paths in _chunks(list(found.paths.values()), arguments.batch):
            clips, readable = [], []
            for path in paths:
                try:
                    clips.append(writer.preprocess.clip(path))
                    readable.append(path)
                except (DataError, OSError) as error:
                    tqdm.write(f"error: {error}", file=sys.stderr)
                    told.append({"path": path, "error": str(error)})
            captions = writer(torch.stack(clips)) if clips else []
            for path, caption in zip(readable, captions, strict=True):
                tqdm.write(f"{path}: {caption}")
                told.append({"path": path, "caption": caption})
            if arguments.output and clips:
                sheets += 1
                save_png(arguments.output / f"captions_{sheets:04d}.png", _sheet(torch.stack(clips), captions, ""))
            bar.update(len(paths))
    failed = sum("error" in entry for entry in told)
    if failed:
        print(f"{failed} of {len(found.paths)} could not be read", file=sys.stderr)
    if sheets:
        print(f"pictures with their captions: {sheets} sheets in {arguments.output}")
    if arguments.json:
        write_json(arguments.json, {**_how(arguments), "captions": told})
    return failed


def score(writer: CaptionWriter, arguments: argparse.Namespace) -> int:
    """CIDEr-D and BLEU of a set, and every caption; how many images could not be read."""
    manifest, name = _read(arguments)
    images = on_disk(manifest.images)
    manifest = manifest.among(images)
    absent = f", {images.left_out} listed images are MISSING and left out" if images.left_out else ""
    print(f"{name}: {len(manifest)} images from {images.source}{absent}")
    dataset = MultiViewDataset(images, writer.preprocess, 1, 1)
    loader = eval_loader(dataset, 0, 1, arguments.batch, arguments.workers)
    written, broken = write_all(writer, loader, len(images), "caption")
    for reason in broken.values():
        print(f"BROKEN, not in the scores: {reason}")
    try:
        scores = caption_scores(written, {index: manifest.of(index) for index in written})
    except ValueError as error:
        raise DataError(f"{images.source}: {error}") from None
    folder = arguments.output or weights_file(arguments.model).parent / "predictions"
    paths = images.paths
    order = sorted(written)
    entries = [{"image": paths[i], "caption": written[i], "references": manifest.of(i)} for i in order]
    told = {
        **_how(arguments),
        "set": str(images.source),
        "split": name,
        "images": len(written),
        "missing_images": images.left_out,
        "broken_images": {paths[i]: reason for i, reason in broken.items()},
        "scores": scores,
    }
    file = _file_name(name, arguments)
    write_json(folder / f"{file}.json", {**told, "captions": entries})
    shown = [order[place] for place in np.linspace(0, len(order) - 1, min(ON_A_SHEET, len(order))).astype(int)]
    clips = torch.stack([dataset[index]["video"][0] for index in shown])
    texts = [f"{written[index]}\n({manifest.of(index)[0]})" for index in shown]
    title = f"{name}: CIDEr {100 * scores['CIDEr']:.1f}; below each picture its caption (and a person's)"
    save_png(folder / f"{file}.png", _sheet(clips, texts, title))
    figures = ", ".join(f"{key} {100 * value:.1f}" for key, value in scores.items())
    print(f"{len(written)} images, {_searched(arguments)}: {figures}   (times 100; CIDEr is CIDEr-D)")
    print(f"saved {folder / file}.json and .png")
    return len(broken)


def _read(arguments: argparse.Namespace) -> tuple[CaptionManifest, str]:
    """The set to score, and what to call its results."""
    given = arguments.score
    if not given.exists():
        raise MissingDataError(f"{given}: no such file or folder; must hold {KARPATHY} or be a list of captions")
    file = _karpathy_file(given) if given.is_dir() else given
    root = arguments.root or (given if given.is_dir() else file.parent)
    if file.name == KARPATHY or arguments.split:
        split = arguments.split or "test"
        return read_karpathy(file, split, root), split
    return read_caption_list(file, root), file.stem


def _karpathy_file(folder: Path) -> Path:
    try:
        return karpathy_file(folder)
    except MissingDataError as error:
        lists = [entry.name for entry in sorted_entries(folder) if entry.name.endswith(LISTS)]
        hint = f"; to score a set of your own, give its list: {', '.join(lists[:3])}" if lists else ""
        raise MissingDataError(f"{error}{hint}") from None


def _file_name(name: str, arguments: argparse.Namespace) -> str:
    """Of the scores of a set: those of another size or another way to search lie beside them."""
    parts = ["captions", name]
    if arguments.compressed_size:
        parts.append("x".join(map(str, arguments.compressed_size)))
    if arguments.beams != BEAMS:
        parts.append("greedy" if arguments.beams == 1 else f"{arguments.beams}_beams")
    if arguments.length_penalty != 1:
        parts.append(f"penalty_{arguments.length_penalty:g}")
    return "_".join(parts)


def _how(arguments: argparse.Namespace) -> dict[str, Any]:
    size = arguments.compressed_size
    return {
        "model": str(arguments.model),
        "beams": arguments.beams,
        "length_penalty": arguments.length_penalty,
        "compressed_size": list(size) if size else None,
    }


def _searched(arguments: argparse.Namespace) -> str:
    if arguments.beams == 1:
        return "greedy"
    return f"beam search ({arguments.beams} beams, length penalty {arguments.length_penalty:g})"


def _sheet(clips: Tensor, texts: Sequence[str], title: str) -> np.ndarray:
    """Of clips uint8 (N, 3, T, H, W), the frame in the middle."""
    return caption_sheet(clips[:, :, clips.shape[2] // 2].permute(0, 2, 3, 1).numpy(), texts, title)


def _chunks(paths: Sequence[str], size: int) -> Iterator[list[str]]:
    places = iter(paths)
    while chunk := list(islice(places, size)):
        yield chunk


if __name__ == "__main__":
    main()
