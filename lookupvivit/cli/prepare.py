"""Scan a dataset: which videos can be decoded, and their properties. Optionally write copies or shards for training."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io.atomic import write_text
from data_pipelines.io.cores import num_workers
from data_pipelines.io.errors import DataError
from data_pipelines.io.lock import locked
from data_pipelines.io.real_paths import real_path
from data_pipelines.io.text import one_line
from lookupvivit.cli.arguments import output_folder, positive_int, positive_seconds
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors
from lookupvivit.config import ConfigError, DataConfig, RunConfig
from lookupvivit.config.loading import load_config

if TYPE_CHECKING:
    from data_pipelines.datasets.manifest import VideoManifest
    from data_pipelines.preparation.copies import CopySettings
    from data_pipelines.preparation.scanning import VideoRecord


SPLITS = ("train", "val")
MAX_CODECS, MAX_REASONS = 4, 5  # lines of a summary


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    with one_line_errors("the same command continues an interrupted scan"):
        config = load_config(arguments.cfg, arguments.overrides)
        require_outside_of_classes(arguments.output, config.data)
        with locked(arguments.output / ".lock"):  # creates the folder
            prepare(config, arguments)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cfg", required=True, metavar="FILE", help="configuration with the dataset")
    add("overrides", nargs="*", metavar="key=value", help="set a key, such as data.root=/data/k400")
    add("--output", required=True, type=output_folder, metavar="FOLDER", help="folder for the lists, copies or shards")
    add("--splits", nargs="+", default=SPLITS, choices=SPLITS)
    add("--workers", type=positive_int, default=num_workers(), metavar="N", help="videos at a time (default: cores)")
    add("--seconds", type=positive_seconds, default=600, help="time limit per video (default: 600)")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--copies", action="store_true", help="write copies that decode faster to FOLDER/videos")
    formats.add_argument("--shards", action="store_true", help="pack the decodable images into tars in FOLDER")
    add("--short-side", type=positive_int, default=256, metavar="N", help="short side of copies, pixels (default: 256)")
    add("--keyframe-every", type=positive_int, default=16, metavar="N", help="frames per key frame (default: 16)")
    add("--crf", type=int, default=20, help="constant rate factor of x264 for copies (default: 20)")
    add("--shard-size", type=float, default=500, metavar="MB", help="size of a shard in MB (default: 500)")
    return parser.parse_intermixed_args()


def prepare(config: RunConfig, arguments: argparse.Namespace) -> None:
    """Scan the splits, write the lists, copies or shards, and print how to use them."""
    from data_pipelines.datasets.manifest import skip_line
    from data_pipelines.preparation.copies import CopySettings
    from data_pipelines.preparation.created_files import SKIP_LIST, claim
    from data_pipelines.preparation.scanning import read_records, scan
    from lookupvivit.training.manifests import listed_videos

    output: Path = arguments.output
    copies = None
    if arguments.copies:
        copies = CopySettings(
            folder=output / "videos",
            root=Path(config.data.root),
            short_side=arguments.short_side,
            keyframe_every=arguments.keyframe_every,
            crf=arguments.crf,
        )
    manifests = {split: listed_videos(config, split) for split in arguments.splits}
    if arguments.copies:  # their lists have one label per video
        for manifest in manifests.values():
            manifest.require_one_label()
    claim(output, planned_outputs(output, manifests, copies, arguments.shards), inputs(config, arguments, manifests))
    # The skip list is for all splits, also those of earlier calls.
    copied: dict[str, set[str]] = {}
    skipped = {split: unreadable(read_records(scan_file(output, split))) for split in SPLITS}
    for split, manifest in manifests.items():
        file = scan_file(output, split)
        limits = {"timeout": arguments.seconds, "max_pixels": config.data.max_pixels}
        records = scan(manifest, file, arguments.workers, copies=copies, description=split, **limits)
        skipped[split], copied[split] = unreadable(records), {record.copy for record in records if record.copy}
        print(f"\n{split}: {summary(records, manifest.unit, has_copies=bool(copies))}\n  details: {file}")
        if split == "train" and config.data.sampling == "clip" and (rate := covering_rate(records, config.data.frames)):
            print(f"  {config.data.frames} frames cover the median video with data.target_fps={rate} data.stride=1")
        if copies:
            write_list(output / f"{split}.csv", manifest, records)
        if arguments.shards:
            pack(manifest, records, output, split, arguments.shard_size * 1e6)
    skip_list = output / SKIP_LIST
    lines = [skip_line(record.path, record.reason) for split in SPLITS for record in skipped[split]]
    write_text(skip_list, "".join(lines))
    if copies:
        is_tree = config.data.dataset == "folders" and has_class_folders(copies.folder, manifests, copied)
        settings = f"data.root={copies.folder}" if is_tree else settings_of_lists(config.data, output, manifests)
        print(f"\nTo {'train' if 'train' in manifests else 'test'} on the copies:  {settings}")
    elif arguments.shards:
        print(f"\nTo train on the shards:  data.dataset=shards data.root={output}")
    elif lines:
        print(f"\nTo skip the {len(lines)} unreadable {manifest.unit}s:  data.skip_list={skip_list}")
    else:
        print(f"\nEvery {manifest.unit} can be read.")


def has_class_folders(folder: Path, manifests: dict[str, VideoManifest], copied: dict[str, set[str]]) -> bool:
    """Whether the copies can be read as a tree of class folders, with the classes of the originals."""
    from data_pipelines.datasets.class_folders import read_split_folders

    for split, manifest in manifests.items():
        try:
            tree = read_split_folders(folder, split)
        except DataError:  # for example, no video of a class can be read
            return False
        if tree.class_names != manifest.class_names or set(tree.paths) != copied[split]:
            return False
    return True


def settings_of_lists(data: DataConfig, output: Path, splits: Iterable[str]) -> str:
    """The settings that read the copies from their lists; keys that such a dataset does not have are reset."""
    lists = " ".join(f"data.{split}_list={split}.csv" for split in splits)
    settings = f"data.dataset=kinetics data.root={output} {lists}"
    for key in ("separator", "fold", "camera_motion", "val_fraction"):
        default = DataConfig.default(key)
        if getattr(data, key) != default:
            settings += f" data.{key}={'null' if default is None else default}"
    return settings


def require_outside_of_classes(output: Path, data: DataConfig) -> None:
    """Raise a ConfigError if ``output`` is in a folder whose subfolders are classes: it would become one of them."""
    if data.dataset != "folders":
        return
    from data_pipelines.datasets.class_folders import SPLIT_FOLDERS

    split_folders = [Path(data.root, name) for names in SPLIT_FOLDERS.values() for name in names]
    class_folders = [real_path(folder) for folder in split_folders if folder.is_dir()] or [real_path(data.root)]
    place = Path(os.path.realpath(output))
    for folder in (place, *place.parents):
        if str(folder) in class_folders:
            raise ConfigError(f"--output: found {output}, in a folder of classes ({folder}); expected another folder")


def scan_file(output: Path, split: str) -> Path:
    """The CSV file with one row per video."""
    return output / f"{split}_videos.csv"


def unreadable(records: list[VideoRecord]) -> list[VideoRecord]:
    """The records of videos that cannot be used."""
    return [record for record in records if record.status != "ok"]


def planned_outputs(
    output: Path, manifests: dict[str, VideoManifest], copies: CopySettings | None, has_shards: bool
) -> list[Path]:
    """The files that may be written; shards excluded, which never replace any."""
    from data_pipelines.preparation.created_files import CLASSES, SKIP_LIST

    files = [output / SKIP_LIST]
    if copies or has_shards:
        files.append(output / CLASSES)
    for split, manifest in manifests.items():
        files.append(scan_file(output, split))
        if copies:
            files += [output / f"{split}.csv", *map(copies.target, manifest.paths)]
    return files


def inputs(
    config: RunConfig, arguments: argparse.Namespace, manifests: dict[str, VideoManifest]
) -> list[str | os.PathLike[str]]:
    """The files that are read: videos, the lists of the dataset, and the configuration."""
    data = config.data
    lists = [Path(data.root, name) for name in (data.train_list, data.val_list)]
    class_lists = [file.with_name("classes.txt") for file in lists]
    files: list[str | os.PathLike[str]] = [arguments.cfg, *lists, *class_lists, *filter(None, (data.skip_list,))]
    for manifest in manifests.values():
        files += [manifest.source, *manifest.paths]
    return files


def summary(records: list[VideoRecord], unit: str, has_copies: bool) -> str:
    """Describe a collection in a few lines: counts, sizes, codecs and reasons of failures."""
    from data_pipelines.datasets.manifest import NO_LABEL

    decoded = [record for record in records if record.status == "ok"]
    counts = Counter(record.status for record in records)
    statuses = ", ".join(f"{counts[status]} {status}" for status in ("ok", "failed", "missing"))
    lines = [f"{len(records)} {unit}s: {statuses}"]
    if decoded:
        hours = "" if unit == "image" else f"{sum(record.seconds for record in decoded) / 3600:.2f} hours, "
        gigabytes = sum(record.bytes for record in decoded) / 1e9
        labels = {record.label for record in decoded if record.label != NO_LABEL}
        lines.append(f"  {hours}{gigabytes:.2f} GB" + (f", {len(labels)} classes" if labels else ""))
        lines.append(value_range("shorter side", [min(record.width, record.height) for record in decoded]))
        if unit == "video":
            lines.append(value_range("frames", [record.frames for record in decoded]))
            rates = [round(record.frames / record.seconds, 2) if record.seconds else 0 for record in decoded]
            lines.append(value_range("frames per second", rates))
        codecs = Counter(record.codec for record in decoded).most_common(MAX_CODECS)
        lines.append("  codecs: " + ", ".join(f"{count} {codec}" for codec, count in codecs))
    num_inexact = sum(not record.exact_jumps for record in decoded)
    if num_inexact and not has_copies:
        lines.append(f"  {num_inexact} must be decoded from their first frame for every clip; --copies avoids that")
    failures = [record.reason for record in records if record.status == "failed"]
    reasons = Counter(reason.partition(":")[2].strip() or reason for reason in failures)  # without the backend's name
    lines += [f"  {count} failed: {reason}" for reason, count in reasons.most_common(MAX_REASONS)]
    return "\n".join(map(one_line, lines))


def covering_rate(records: list[VideoRecord], frames: int) -> float | None:
    """The frame rate at which ``frames`` frames are as long as the median video; None for images.

    It is not above the median of the frame rates, which more frames of a short video could only repeat.
    """
    decoded = [record for record in records if record.status == "ok" and record.frames > 1 and record.seconds]
    if not decoded or frames == 1:
        return None
    seconds = sorted(record.seconds for record in decoded)[len(decoded) // 2]
    rate = sorted(record.frames / record.seconds for record in decoded)[len(decoded) // 2]
    return float(f"{min(rate, frames / seconds):.3g}")


def value_range(name: str, values: list[int] | list[float]) -> str:
    ordered = sorted(values)
    return f"  {name}: {ordered[0]} to {ordered[-1]}, median {ordered[len(ordered) // 2]}"


def write_list(file: Path, manifest: VideoManifest, records: list[VideoRecord]) -> None:
    """Write a ``path label`` list of the decodable videos (of their copies, if any), and classes.txt next to it.

    A name with a line feed cannot be listed and is printed instead.
    """
    from data_pipelines.preparation.created_files import CLASSES

    lines = []
    for record in records:
        if record.status == "ok":
            path = os.path.relpath(record.copy, file.parent) if record.copy else os.path.abspath(record.path)
            if "\n" in path or "\r" in path:
                print(f"{one_line(path)}: not in {file}, because its name contains a line feed; rename it")
            else:
                lines.append(f"{path} {record.label}\n")
    write_text(file, "".join(lines))
    write_text(file.with_name(CLASSES), "".join(f"{name}\n" for name in manifest.class_names))


def pack(manifest: VideoManifest, records: list[VideoRecord], folder: Path, split: str, shard_bytes: float) -> None:
    """Write the decodable images as shards, and the index that the first reader would otherwise have to create."""
    from data_pipelines.datasets.shards import read_shards
    from data_pipelines.preparation.shard_writing import write_shards

    decoded = [index for index, record in enumerate(records) if record.status == "ok"]
    shards = write_shards(manifest.select(decoded), folder, split, shard_bytes)
    read_shards(folder, f"{split}-*.tar", manifest.class_names)
    print(f"{split}: {len(decoded)} images in {len(shards)} shards")


if __name__ == "__main__":
    main()
