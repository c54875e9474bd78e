"""ImageNet-C as people have it:

    root/<corruption>/<severity, 1 to 5>/<class>/<picture>         unpacked side by side
    root/<archive>/<corruption>/<severity>/<class>/<picture>       each of its five archives in a folder of its own

Its images are 224 x 224 already. ImageNet-A, -O and -R are plain class folders
(`data_pipelines.datasets.class_folders`).
"""

from __future__ import annotations

import os
from pathlib import Path

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import sorted_entries

ARCHIVES = ("blur", "digital", "noise", "weather", "extra")


def other_folders(root: str | os.PathLike[str], corruptions: tuple[str, ...]) -> list[str]:
    """Folders where `corruption_folders` looks that are called otherwise, relative to ``root``: maybe misspelt."""
    root, others = Path(root), []
    for place in (root, *(root / archive for archive in ARCHIVES)):
        names = [entry.name for entry in sorted_entries(place) if entry.is_dir()] if place.is_dir() else []
        known = {*corruptions, *(ARCHIVES if place == root else ())}
        others += [str((place / name).relative_to(root)) for name in names if name not in known and name[0] != "."]
    return others


def corruption_folders(root: str | os.PathLike[str], corruptions: tuple[str, ...]) -> dict[str, dict[int, Path]]:
    """By corruption and severity, the folders that exist, in the order of ``corruptions``.

    What a corruption or a severity lacks is not there; the caller tells which.

    Raises:
        MissingDataError: no such root, or none of the corruptions is there.
        DataError: a corruption lies there twice.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder; it must hold a folder per corruption, {corruptions[0]} ...")
    found = {}
    for name in corruptions:
        places = [place for place in (root / name, *(root / archive / name for archive in ARCHIVES)) if place.is_dir()]
        if len(places) > 1:
            raise DataError(f"{root}: found {name} twice, as {places[0]} and {places[1]}; must be there once")
        severities = {level: places[0] / str(level) for level in range(1, 6)} if places else {}
        found[name] = {level: folder for level, folder in severities.items() if folder.is_dir()}
    if not any(found.values()):
        raise MissingDataError(
            f"{root}: found none of the {len(corruptions)} corruptions, looked for such as "
            f"{root / corruptions[0] / '1'}"
        )
    return found
