"""Something-Something V2, read and written in its own layout.

    root/
      labels/                           or annotations/, or root itself
        train.json                      or something-something-v2-train.json
        validation.json                 or something-something-v2-validation.json
        labels.json                     or something-something-v2-labels.json
      20bn-something-something-v2/      or videos/, frames/
        <id>.webm                       or <id>.mp4, or a folder <id>/ of pictures

train and validation are lists of {"id", "label", "template", "placeholders"}, or objects with such a list under
"labels"; the template has its placeholders in brackets ("Holding [something]"). labels maps templates without
brackets to class ids, which are strings. The test set was published without labels and cannot be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.atomic import write_json
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import sorted_entries

SPLITS = ("train", "validation")
ANNOTATION_FOLDERS = ("", "labels", "annotations")
VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", "frames")
VIDEO_SUFFIXES = (".mp4", ".webm")  # .webm, the original, wins where a video has both, and both over pictures
PREFIX = "something-something-v2-"
SEE = "see docs/DATA.md, section 'Preparing Something-Something V2'"


class Annotation(NamedTuple):
    """A video's entry in train.json or validation.json."""

    id: str
    label: str
    template: str
    placeholders: list[str]


def read_something_something(root: str | os.PathLike[str], split: str) -> VideoManifest:
    """The videos of ``split`` ("train" or "validation"); class names come in the order of their ids.

    Raises:
        MissingDataError: annotations or the video folder are not there.
        DataError: an annotation that does not follow the layout above; names the video's id.
    """
    if split not in SPLITS:
        hint = "; the test set has no labels to train on or score with" if split == "test" else ""
        raise DataError(f"split: {split!r} is none of {', '.join(SPLITS)}{hint}")
    root = Path(root)
    class_ids = _read_class_ids(_find_annotation(root, "labels"))
    annotation = _find_annotation(root, split)
    folder, files = _index_videos(root)
    paths, labels = [], []
    for entry in _read_entries(annotation):
        if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
            raise DataError(
                f"{annotation}: expected objects with 'id' and 'template'; found {str(entry)[:80]}; a test set, "
                "which has no labels, can be neither trained on nor scored"
            )
        video, name = str(entry["id"]), without_brackets(str(entry["template"]))
        if name not in class_ids:
            raise DataError(f"{annotation}: video {video} has template {entry['template']!r}, which labels.json lacks")
        paths.append(os.path.join(folder, files.get(video, f"{video}.webm")))
        labels.append(class_ids[name])
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(class_ids), str(annotation))


def write_something_something(
    root: str | os.PathLike[str],
    annotations: Mapping[str, Sequence[Annotation]],
    templates: Sequence[str],
) -> None:
    """Write the annotations of a dataset into root/labels, each file atomically. The videos belong into root/videos.

    Args:
        root: folder of the dataset; created if it does not exist.
        annotations: the videos of each split, "train" and "validation".
        templates: of the classes, in the order of their ids.
    """
    folder = Path(root) / "labels"
    write_json(folder / "labels.json", {without_brackets(name): str(i) for i, name in enumerate(templates)})
    for split, videos in annotations.items():
        write_json(folder / f"{split}.json", [video._asdict() for video in videos])


def without_brackets(template: str) -> str:
    """A template as labels.json spells it: "Holding [something]" -> "Holding something"."""
    return template.replace("[", "").replace("]", "")


def _find_annotation(root: Path, name: str) -> Path:
    candidates = [root / folder / f"{prefix}{name}.json" for folder in ANNOTATION_FOLDERS for prefix in ("", PREFIX)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise MissingDataError(
        f"{root}: no {name}.json or {PREFIX}{name}.json, in it or its folders labels and annotations; {SEE}"
    )


def _read_class_ids(path: Path) -> dict[str, int]:
    """Template without brackets -> class id, in the order of the ids, which must be 0 to K - 1."""
    content = _read_json(path, dict)
    try:
        ids = {str(name): int(label) for name, label in content.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f'{path}: expected class ids like "0" as values; {error}') from error
    if sorted(ids.values()) != list(range(len(ids))):
        raise DataError(
            f"{path}: expected the class ids 0 to {len(ids) - 1}, each once; found {sorted(ids.values())[:5]}"
        )
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _index_videos(root: Path) -> tuple[str, dict[str, str]]:
    """The video folder and the file name of every video id, from one listing rather than a stat per video."""
    for name in VIDEO_FOLDERS:
        if (root / name).is_dir():
            files: dict[str, str] = {}
            for entry in sorted_entries(root / name):  # by name: an id's folder, then its .mp4, then its .webm
                stem, suffix = os.path.splitext(entry.name)
                if suffix in VIDEO_SUFFIXES or (not suffix and entry.is_dir()):
                    files[stem] = entry.name
            return str(root / name), files
    raise MissingDataError(
        f"{root}: no folder {' or '.join(VIDEO_FOLDERS)} with <id>.webm, <id>.mp4 or folders of pictures in it; {SEE}"
    )


def _read_entries(path: Path) -> list[Any]:
    content = _read_json(path, list, dict)
    entries = content.get("labels") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a JSON list of videos, or one under 'labels'; found {str(content)[:80]}")
    return entries


def _read_json(path: Path, *kinds: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise DataError(f"{path}: expected a JSON {wanted}; found {type(content).__name__}")
    return content
