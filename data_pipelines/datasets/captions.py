"""Pictures (or videos) and the captions that people gave them.

COCO with Karpathy's split: root/dataset_coco.json, root/train2014/*.jpg, root/val2014/*.jpg
anybody's own: a list in JSON, JSON lines or CSV, of images with one caption or several each
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.datasets.clips import ClipDataset, ClipTransform
from data_pipelines.datasets.manifest import PathList, VideoManifest
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.text_lines import numbered_lines
from data_pipelines.random_streams import CAPTION
from data_pipelines.sampling import Sampling
from data_pipelines.video.reader import TIMEOUT

KARPATHY = "dataset_coco.json"
# The training set of the literature is train and restval: 82,783 + 30,504 of COCO's 2014 images; 5,000 are in val and
# in test each.
SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
LISTS = (".json", ".jsonl", ".csv")


class Captions(Sequence[list[str]]):
    """The captions of N images, as one blob of text: see `PathList`."""

    def __init__(self, captions: Iterable[Sequence[str]]) -> None:
        ends = [0]

        def flat() -> Iterator[str]:
            for texts in captions:
                ends.append(ends[-1] + len(texts))
                yield from texts

        self.texts = PathList(flat())
        self._ends = np.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> list[str]:
        index = range(len(self))[index]
        return list(self.texts[int(self._ends[index]) : int(self._ends[index + 1])])


@dataclass(frozen=True)
class CaptionManifest:
    """Images and their captions.

    Attributes:
        images: of which ``labels`` tell where an image's captions stand in ``captions``, and there are no classes.
        captions: one or more texts of every listed image, also of those that are not among ``images``.
    """

    images: VideoManifest
    captions: Captions

    def __len__(self) -> int:
        return len(self.images)

    def of(self, index: int) -> list[str]:
        """The captions of image ``index``."""
        return self.captions[int(self.images.labels[index])]

    def texts(self) -> Iterator[str]:
        """All captions of all images."""
        for index in range(len(self)):
            yield from self.of(index)

    def among(self, images: VideoManifest) -> CaptionManifest:
        """With fewer images, as `manifest.on_disk` leaves them."""
        return replace(self, images=images)


def read_karpathy(file: str | os.PathLike[str], split: str, root: str | os.PathLike[str]) -> CaptionManifest:
    """The images of ``split`` ("train", with restval, "val" or "test") in Karpathy's format, whether on disk or not.

    Args:
        file: dataset_coco.json, or a file of the same format.
        root: holds the folders that the images' ``filepath`` names, or images/ with these; images that name none lie
            in images/ or in ``root`` itself.

    Raises:
        MissingDataError: no such file.
        DataError: another format, or no image of the split.
    """
    file, root = Path(file), Path(root)
    if split not in SPLITS:
        raise DataError(f"split: found {split!r}, must be one of {', '.join(SPLITS)}")
    content = _json(file)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(
            f"{file}: has no list 'images', must be Karpathy's {KARPATHY} or a file of its format; "
            "a plain list has no split"
        )
    folders: dict[str, Path] = {}
    found: dict[str, list[str]] = {}
    for number, entry in enumerate(entries):
        where = f"{file}: images[{number}]"
        name, sentences = (_entry(entry, key, kind, where) for key, kind in (("filename", str), ("sentences", list)))
        if _entry(entry, "split", str, where) not in SPLITS[split]:
            continue
        folder = entry.get("filepath") or ""
        if folder not in folders:
            places = [root / folder, root / "images" / folder]
            if not folder:
                places.reverse()
            folders[folder] = next((place for place in places if place.is_dir()), places[0])
        texts = [_entry(sentence, "raw", str, f"{where}.sentences[{i}]") for i, sentence in enumerate(sentences)]
        _add(found, os.path.join(folders[folder], name), texts, where)
    return _manifest(found, file, f" of the split {' or '.join(SPLITS[split])}")


def read_caption_list(file: str | os.PathLike[str], root: str | os.PathLike[str]) -> CaptionManifest:
    """Images and captions of a list, whether on disk or not.

    JSON is a list of objects with ``image`` and ``captions`` (a list) or ``caption`` (a text), or one object with the
    captions by image; JSON lines are such objects, one a line; CSV has the columns ``image`` and ``caption``. An image
    may stand there several times, with another caption each.

    Args:
        file: whose name ends in one of `LISTS`.
        root: the folder that the paths of the images start from.

    Raises:
        MissingDataError: no such file.
        DataError: another format, or no image.
    """
    file = Path(file)
    readers = dict(zip(LISTS, (_from_json, _from_lines, _from_csv), strict=True))
    if file.suffix.lower() not in readers:
        raise DataError(f"{file}: a list of captions must end in {', '.join(LISTS)}")
    if not file.is_file():
        raise MissingDataError(f"{file}: no such file; it must list images and their captions")
    found: dict[str, list[str]] = {}
    for where, image, texts in readers[file.suffix.lower()](file):
        _add(found, os.path.join(root, image), texts, where)
    return _manifest(found, file, "")


def _manifest(found: dict[str, list[str]], file: Path, which: str) -> CaptionManifest:
    if not found:
        raise DataError(f"{file}: lists no image{which}; at least one is needed")
    images = VideoManifest(PathList(found), np.arange(len(found)), (), str(file))
    return CaptionManifest(images, Captions(found.values()))


def _add(found: dict[str, list[str]], path: str, texts: Sequence[str], where: str) -> None:
    if not texts or not all(text.strip() for text in texts):
        raise DataError(f"{where}: found {'an empty' if texts else 'no'} caption, must be one text or more of an image")
    found.setdefault(os.path.normpath(path), []).extend(texts)


def _entry(entry: Any, key: str, kind: type, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        name = {str: "a text", list: "a list"}[kind]
        raise DataError(f"{where}: found {_short(entry)}, must have {key!r}, {name}")
    return value


def _captions(value: Any, where: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: found {_short(value)}, must be a caption or a list of captions")
    return texts


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError):
        raise MissingDataError(f"{file}: no such file; it must list images and their captions") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not valid JSON ({error})") from None


def _object(entry: Any, where: str) -> tuple[str, str, list[str]]:
    key = "captions" if isinstance(entry, dict) and "captions" in entry else "caption"
    image = _entry(entry, "image", str, where)
    if key not in entry:
        raise DataError(f"{where}: found {_short(entry)}, must have 'captions' or 'caption'")
    return where, image, _captions(entry[key], where)


def _from_json(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    content = _json(file)
    if isinstance(content, dict):
        for image, texts in content.items():
            where = f"{file}: {image!r}"
            yield where, image, _captions(texts, where)
    elif isinstance(content, list):
        for number, entry in enumerate(content):
            yield _object(entry, f"{file}: [{number}]")
    else:
        raise DataError(f"{file}: found {_short(content)}, must be a list of objects with 'image' and 'captions'")


def _from_lines(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    for number, line in numbered_lines(file):
        where = f"{file}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON ({error})") from None
        yield _object(entry, where)


def _from_csv(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            if rows.fieldnames is None or not {"image", "caption"} <= set(rows.fieldnames):
                raise DataError(f"{file}: found the columns {rows.fieldnames}, must have 'image' and 'caption'")
            for row in rows:
                where = f"{file}, line {rows.line_num}"
                if None in row or row["image"] is None or row["caption"] is None:
                    raise DataError(
                        f"{where}: found {_short(row)}, must have as many columns as the first line; a "
                        "caption with commas stands in quotes"
                    )
                yield where, row["image"], [row["caption"]]
    except UnicodeDecodeError:
        raise DataError(f"{file}: found bytes that are not UTF-8, must be a text file") from None


class CaptionedClips(ClipDataset):
    """Clips to train on, each with one of its captions, drawn anew in every epoch: ``tokens`` int64 (length,).

    Args:
        manifest: images and captions.
        tokens: what a caption is to a model.
        sampling, transform, seed, repeats, backend, timeout: as `ClipDataset`; the clips of one decode may have
            different captions.
    """

    def __init__(
        self,
        manifest: CaptionManifest,
        tokens: Callable[[str], np.ndarray],
        sampling: Sampling,
        transform: ClipTransform,
        seed: int,
        repeats: int = 1,
        backend: str = "auto",
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(manifest.images, sampling, transform, seed, repeats, backend, timeout)
        self.captioned, self.tokens = manifest, tokens

    def __getitem__(self, key: tuple[int, int]) -> list[dict[str, Any]]:
        """As `ClipDataset`, with ``tokens``."""
        epoch, index = key
        samples = super().__getitem__(key)
        rng = np.random.default_rng((self.seed, epoch, index, CAPTION))
        for sample in samples:
            captions = self.captioned.of(sample["video_index"])  # of the image that stands in, where one does
            sample["tokens"] = torch.from_numpy(self.tokens(captions[int(rng.integers(len(captions)))]))
        return samples
