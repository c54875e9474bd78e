"""Look through a whole data set once: what can be read, what it is like; on request, copies or shards to train on.

python tools/prepare_dataset.py --cfg configs/k400_9x9x8.yaml data.root=/data/k400 --output /data/prepared [--copies]
python tools/prepare_dataset.py --cfg configs/imagenet_5x5.yaml --output /data/imagenet_shards --shards
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.datasets.shards import read_shards
from data_pipelines.preparation.scanning import Copies, Row, scan
from data_pipelines.preparation.shard_writing import write_shards
from lookupvivit.cli.arguments import one_line_errors
from lookupvivit.config import RunConfig
from lookupvivit.config.loading import load_config
from lookupvivit.training.manifests import listed_videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", required=True, metavar="FILE", help="configuration that names the data set")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.root=/data/k400")
    parser.add_argument("--output", required=True, type=Path, help="folder for the lists (and the copies)")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], choices=["train", "val"])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="videos at a time (one per core)")
    parser.add_argument("--seconds", type=float, default=600, help="time limit per video (600)")
    writing = parser.add_mutually_exclusive_group()
    writing.add_argument("--copies", action="store_true", help="write copies that decode quickly into OUTPUT/videos")
    writing.add_argument("--shards", action="store_true", help="pack the pictures that can be read into tars in OUTPUT")
    parser.add_argument("--short-side", type=int, default=256, help="of the copies, pixels (256)")
    parser.add_argument("--keyframe-every", type=int, default=16, help="of the copies, frames (16)")
    parser.add_argument("--crf", type=int, default=20, help="of the copies, x264's rate factor (20)")
    parser.add_argument("--shard-size", type=float, default=500, help="of the shards, MB (500)")
    arguments = parser.parse_intermixed_args()
    with one_line_errors("a scan goes on where it stopped by the same command"):
        prepare(load_config(arguments.cfg, arguments.overrides), arguments)


def prepare(config: RunConfig, arguments: argparse.Namespace) -> None:
    """Scan the splits, write the lists, and say what to do with them."""
    output, root = arguments.output, Path(config.data.root)
    copies = None
    if arguments.copies:
        copies = Copies(output / "videos", root, arguments.short_side, arguments.keyframe_every, arguments.crf)
    skipped: list[Row] = []
    for split in arguments.splits:
        manifest = listed_videos(config, split)
        file = output / f"{split}_videos.csv"
        rows = scan(manifest, file, arguments.workers, arguments.seconds, copies, split)
        skipped += [row for row in rows if row.status != "ok"]
        print(f"\n{split}: {summary(rows, bool(copies))}\n  {file} has all of them")
        if copies:
            write_list(output / f"{split}.csv", manifest, rows, output)
        if arguments.shards:
            good = [index for index, row in enumerate(rows) if row.status == "ok"]
            shards = write_shards(manifest.only(good), output, split, arguments.shard_size * 1e6)
            read_shards(output, f"{split}-*.tar", manifest.class_names)  # now, as the next reader would have to
            print(f"{split}: {len(good)} pictures in {len(shards)} shards")
    lines = "".join(f"{row.path}\t{row.reason}\n" for row in skipped)
    (output / "skip.txt").write_text(lines, encoding="utf-8")
    if copies:
        print(
            f"\nTrain on the copies:  data.dataset=kinetics data.root={output} data.train_list=train.csv "
            "data.val_list=val.csv"
        )
    elif arguments.shards:
        print(f"\nTrain on the shards:  data.dataset=shards data.root={output}")
    elif skipped:
        print(f"\nLeave the {len(skipped)} unreadable videos out:  data.skip_list={output / 'skip.txt'}")
    else:
        print("\nEvery video can be read.")


def summary(rows: list[Row], copied: bool) -> str:
    """What there is, in a few lines a person can act on."""
    good = [row for row in rows if row.status == "ok"]
    counts = Counter(row.status for row in rows)
    lines = [f"{len(rows)} videos: " + ", ".join(f"{counts[s]} {s}" for s in ("ok", "broken", "missing"))]
    if good:
        hours = sum(row.seconds for row in good) / 3600
        gigabytes = sum(row.bytes for row in good) / 1e9
        lines.append(f"  {hours:.2f} hours, {gigabytes:.2f} GB, {len({row.label for row in good})} classes")
        for name, values in (
            ("frames", [row.frames for row in good]),
            ("shorter side", [min(row.width, row.height) for row in good]),
            ("frames per second", [round(row.frames / row.seconds, 2) if row.seconds else 0 for row in good]),
        ):
            values.sort()
            lines.append(f"  {name}: {values[0]} to {values[-1]}, median {values[len(values) // 2]}")
        lines.append("  codecs: " + ", ".join(f"{n} {c}" for c, n in Counter(r.codec for r in good).most_common(4)))
    slow = sum(not row.exact_jumps for row in good)
    if slow and not copied:
        lines.append(f"  {slow} have to be decoded from their first frame on for every clip; --copies would help")
    reasons = Counter(row.reason.partition(":")[2].strip() or row.reason for row in rows if row.status == "broken")
    lines += [f"  broken, {count}: {reason}" for reason, count in reasons.most_common(5)]
    return "\n".join(lines)


def write_list(file: Path, manifest: VideoManifest, rows: list[Row], root: Path) -> None:
    """A ``path label`` list of the readable videos, their copies where there are any; and the class names beside it."""
    beside = file.with_name(f".{file.name}.tmp")
    with beside.open("w", encoding="utf-8") as lines:
        for row in rows:
            if row.status == "ok":
                path = os.path.relpath(row.copy, root) if row.copy else os.path.abspath(row.path)
                lines.write(f"{path} {row.label}\n")
    os.replace(beside, file)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in manifest.class_names), encoding="utf-8")


if __name__ == "__main__":
    main()
