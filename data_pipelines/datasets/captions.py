"""Images (or videos) and their captions.

COCO with Karpathy's split: root/dataset_coco.json, root/train2014/*.jpg, root/val2014/*.jpg
Other datasets: a list in JSON, JSON lines or CSV, of images with one or several captions each
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.datasets.clips import ClipDataset, ClipTransform
from data_pipelines.datasets.layout import require_split
from data_pipelines.datasets.manifest import StringList, VideoManifest
from data_pipelines.io.csv_files import read_csv
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.json_files import excerpt, json_field, parse_json, read_json
from data_pipelines.io.text import numbered_lines
from data_pipelines.random_streams import CAPTION
from data_pipelines.sampling import Sampling
from data_pipelines.video.reader import TIMEOUT

KARPATHY_FILE = "dataset_coco.json"
# The literature trains on train and restval: 82,783 + 30,504 of COCO's 2014 images; val and test have 5,000 each.
SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


class Captions:
    """The captions of N images, stored as one block of text, see `StringList`."""

    def __init__(self, captions: Collection[Sequence[str]]) -> None:
        self.texts = StringList(chain.from_iterable(captions))
        ends = np.cumsum([len(texts) for texts in captions], dtype=np.int64)
        self._offsets = np.concatenate(([0], ends)).astype(np.int64)  # (N + 1,)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> list[str]:
        index = range(len(self))[index]  # resolves negative indices and raises IndexError
        return list(self.texts[int(self._offsets[index]) : int(self._offsets[index + 1])])


@dataclass(frozen=True)
class CaptionManifest:
    """Images and their captions.

    Attributes:
        images: without class names; ``labels`` are positions in ``captions``.
        captions: one or more texts of every listed image, including those that ``images`` no longer contains.
    """

    images: VideoManifest
    captions: Captions

    def __len__(self) -> int:
        return len(self.images)

    def captions_of(self, index: int) -> list[str]:
        """The captions of image ``index``."""
        return self.captions[int(self.images.labels[index])]

    def texts(self) -> Iterator[str]:
        """All captions of all images."""
        for index in range(len(self)):
            yield from self.captions_of(index)

    def with_images(self, images: VideoManifest) -> CaptionManifest:
        """The same captions with a subset of the images, such as `manifest.exclude_missing` returns."""
        return replace(self, images=images)


def read_karpathy(file: str | os.PathLike[str], split: str, root: str | os.PathLike[str]) -> CaptionManifest:
    """All listed images of ``split`` ("train", which includes restval, "val" or "test") in Karpathy's format.

    Args:
        file: dataset_coco.json, or a file of the same format.
        split: which images to return.
        root: contains the folders that the images' ``filepath`` names, possibly inside images/. Images without
            ``filepath`` lie in images/ or in ``root`` itself.

    Raises:
        MissingDataError: the file does not exist.
        DataError: the file has another format or no image of the split.
    """
    file, root = Path(file), Path(root)
    require_split(split, SPLITS)

    @cache
    def image_folder(name: str) -> Path:
        candidates = [root / name, root / "images" / name] if name else [root / "images", root]
        return next((folder for folder in candidates if os.path.isdir(folder)), candidates[0])

    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(json_field(read_json(file), "images", list, str(file))):
        location = f"{file}: images[{number}]"
        name = json_field(entry, "filename", str, location)
        sentences = json_field(entry, "sentences", list, location)
        if json_field(entry, "split", str, location) not in SPLITS[split]:
            continue
        texts = [json_field(text, "raw", str, f"{location}.sentences[{i}]") for i, text in enumerate(sentences)]
        folder = json_field(entry, "filepath", str, location) if entry.get("filepath") else ""
        _add(captions, image_folder(folder), name, texts, location)
    return _manifest(captions, file, f" of the split {' or '.join(SPLITS[split])}")


def read_caption_list(file: str | os.PathLike[str], root: str | os.PathLike[str]) -> CaptionManifest:
    """All images and captions of a list.

    - JSON: a list of objects with ``image`` and ``captions`` (a list) or ``caption`` (a string), or one object that
      maps images to their captions.
    - JSON lines: one such object with ``image`` per line.
    - CSV: columns ``image`` and ``caption``.

    An image may occur several times, with different captions.

    Args:
        file: its suffix is one of `LIST_SUFFIXES`.
        root: the folder that the images' paths start from.

    Raises:
        MissingDataError: the file does not exist.
        DataError: the file has another format or no image.
    """
    file = Path(file)
    reader = _LIST_READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: found the suffix {file.suffix!r}, expected {', '.join(LIST_SUFFIXES)}")
    if not file.is_file():
        raise MissingDataError(f"{file}: no such file, expected a list of images and captions")
    captions: dict[str, list[str]] = {}
    for location, image, texts in reader(file):
        _add(captions, root, image, texts, location)
    return _manifest(captions, file)


_Entry = tuple[str, str, list[str]]  # location, image, captions


def _read_json_list(file: Path) -> Iterator[_Entry]:
    content = read_json(file, list, dict)
    if isinstance(content, dict):
        for image, texts in content.items():
            location = f"{file}: {image!r}"
            yield location, image, _as_captions(texts, location)
    else:
        for number, entry in enumerate(content):
            yield _parse_entry(entry, f"{file}: [{number}]")


def _read_json_lines(file: Path) -> Iterator[_Entry]:
    for number, line in numbered_lines(file):
        location = f"{file}:{number}"
        yield _parse_entry(parse_json(line, location), location)


def _read_csv_list(file: Path) -> Iterator[_Entry]:
    for number, (image, caption) in read_csv(file, ("image", "caption")):
        yield f"{file}:{number}", image, [caption]


_LIST_READERS: dict[str, Callable[[Path], Iterator[_Entry]]] = {
    ".json": _read_json_list,
    ".jsonl": _read_json_lines,
    ".csv": _read_csv_list,
}
LIST_SUFFIXES = tuple(_LIST_READERS)


def _parse_entry(entry: Any, location: str) -> _Entry:
    image = json_field(entry, "image", str, location)
    texts = entry.get("captions", entry.get("caption"))
    if texts is None:
        raise DataError(f"{location}: found {excerpt(entry)}, expected 'captions' or 'caption'")
    return location, image, _as_captions(texts, location)


def _as_captions(value: Any, location: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{location}: found {excerpt(value)}, expected a caption or a list of captions")
    return texts


def _add(
    captions: dict[str, list[str]], folder: str | os.PathLike[str], image: str, texts: Sequence[str], location: str
) -> None:
    if not image.strip():
        raise DataError(f"{location}: found an empty path, expected the path of an image")
    if not texts or not all(text.strip() for text in texts):
        found = "an empty caption" if texts else "no caption"
        raise DataError(f"{location}: found {found}, expected one or more non-empty captions")
    captions.setdefault(os.path.normpath(os.path.join(folder, image)), []).extend(texts)


def _manifest(captions: dict[str, list[str]], file: Path, subset: str = "") -> CaptionManifest:
    if not captions:
        raise DataError(f"{file}: found no image{subset}, expected at least one")
    images = VideoManifest(StringList(captions), np.arange(len(captions)), (), str(file))
    return CaptionManifest(images, Captions(captions.values()))


class CaptionedClips(ClipDataset):
    """Training clips, each with a random caption of its image: ``tokens`` int64 (length,). Captions vary by epoch.

    Args:
        manifest: images and captions.
        tokenize: converts a caption to token ids.
        sampling, transform, seed, repeats, backend, timeout, max_pixels: see `ClipDataset`. The clips of one decoded
            video may have different captions.
    """

    def __init__(
        self,
        manifest: CaptionManifest,
        tokenize: Callable[[str], np.ndarray],
        sampling: Sampling,
        transform: ClipTransform,
        seed: int,
        repeats: int = 1,
        backend: str = "auto",
        timeout: float = TIMEOUT,
        max_pixels: int | None = None,
    ) -> None:
        super().__init__(manifest.images, sampling, transform, seed, repeats, backend, timeout, max_pixels)
        self.captioned, self.tokenize = manifest, tokenize

    def __getitem__(self, key: tuple[int, int]) -> list[dict[str, Any]]:
        """As `ClipDataset`, with ``tokens``."""
        epoch, index = key
        samples = super().__getitem__(key)
        rng = np.random.default_rng((self.seed, epoch, index, CAPTION))
        for sample in samples:
            captions = self.captioned.captions_of(sample["video_index"])  # a substitute has its own captions
            caption = captions[int(rng.integers(len(captions)))]
            sample["tokens"] = torch.from_numpy(self.tokenize(caption))
        return samples
