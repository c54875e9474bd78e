"""Something-Something V2: read and write its layout.

    root/
      labels/                           or annotations/, or root itself
        train.json                      or something-something-v2-train.json
        validation.json                 or something-something-v2-validation.json
        labels.json                     or something-something-v2-labels.json
      20bn-something-something-v2/      or videos/, frames/
        <id>.webm                       or <id>.mp4, or a folder <id>/ of images

train and validation are lists of {"id", "label", "template", "placeholders"}, or objects with such a list under
"labels". A template has its placeholders in brackets ("Holding [something]"). labels maps templates without brackets
to class ids, which are strings. The test set was published without labels and cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.datasets.layout import find_file, find_folder, require_split
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.atomic import write_json
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.json_files import excerpt, read_json
from data_pipelines.io.listing import is_folder, sorted_entries

SPLITS = ("train", "validation")
ANNOTATION_FOLDERS = ("", "labels", "annotations")
ANNOTATION_PREFIX = "something-something-v2-"
VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", "frames")
VIDEO_SUFFIXES = (".mp4", ".webm")  # if an id has several: .webm, the original, before .mp4 before images
SEE = "see docs/DATA.md, section 'Preparing Something-Something V2'"


class Annotation(NamedTuple):
    """A video's entry in train.json or validation.json."""

    id: str
    label: str
    template: str
    placeholders: list[str]


def read_something_something(root: str | os.PathLike[str], split: str) -> VideoManifest:
    """The videos of ``split`` ("train" or "validation").

    Raises:
        MissingDataError: the annotations or the video folder do not exist.
        DataError: an annotation does not have the layout above.
    """
    require_split(split, SPLITS)
    root = Path(root)
    class_ids = _read_class_ids(_find_annotations(root, "labels"))
    annotation_file = _find_annotations(root, split)
    folder, files = _index_videos(root)
    paths, labels = [], []
    for entry in _read_entries(annotation_file):
        if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
            raise DataError(
                f"{annotation_file}: found {excerpt(entry)}, expected an object with 'id' and 'template'; the test "
                "set has no templates, so it can be neither trained on nor scored"
            )
        video_id, name = str(entry["id"]), without_brackets(str(entry["template"]))
        if name not in class_ids:
            raise DataError(
                f"{annotation_file}: video {video_id}: found the template {entry['template']!r}, expected one of the "
                f"{len(class_ids)} in labels.json"
            )
        paths.append(os.path.join(folder, files.get(video_id, f"{video_id}.webm")))
        labels.append(class_ids[name])
    return VideoManifest(paths, np.array(labels, dtype=np.int64), tuple(class_ids), str(annotation_file))


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


def _find_annotations(root: Path, name: str) -> Path:
    return find_file(root, ANNOTATION_FOLDERS, (f"{name}.json", f"{ANNOTATION_PREFIX}{name}.json"), SEE)


def _read_class_ids(file: Path) -> dict[str, int]:
    """Template without brackets -> class id, in the order of the ids, which must be 0 to K - 1."""
    content = read_json(file, dict)
    try:
        ids = {str(name): int(label) for name, label in content.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f'{file}: expected class ids such as "0" as values: {error}') from error
    if sorted(ids.values()) != list(range(len(ids))):
        raise DataError(
            f"{file}: found the class ids {excerpt(sorted(ids.values()))}, expected 0 to {len(ids) - 1}, each once"
        )
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _read_entries(file: Path) -> list[Any]:
    content = read_json(file, list, dict)
    entries = content.get("labels") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise DataError(
            f"{file}: found {excerpt(content)}, expected a list of videos, or an object with it as 'labels'"
        )
    return entries


def _index_videos(root: Path) -> tuple[Path, dict[str, str]]:
    """The video folder and the file name per video id, from one listing instead of a query per video."""
    folder = find_folder(root, VIDEO_FOLDERS)
    if folder is None:
        raise MissingDataError(f"{root}: no folder {' or '.join(VIDEO_FOLDERS)} with the videos; {SEE}")
    files: dict[str, str] = {}
    for entry in sorted_entries(folder):  # sorted, so an id's folder precedes its .mp4 and its .webm
        stem, suffix = os.path.splitext(entry.name)
        if suffix in VIDEO_SUFFIXES or (not suffix and is_folder(entry)):
            files[stem] = entry.name
    return folder, files
