"""ImageNet-C (Hendrycks and Dietterich, 2019), unpacked in one of two ways:

    root/<corruption>/<severity, 1 to 5>/<class>/<image>         without the archives' names
    root/<archive>/<corruption>/<severity>/<class>/<image>       each of the five archives in its own folder

Its images are already 224 x 224. ImageNet-A, -O and -R are plain class folders, see
`data_pipelines.datasets.class_folders`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.listing import is_folder, sorted_entries

ARCHIVES = ("blur", "digital", "noise", "weather", "extra")
SEVERITIES = range(1, 6)


def corruption_folders(root: str | os.PathLike[str], corruptions: Sequence[str]) -> dict[str, dict[int, Path]]:
    """Corruption -> severity -> folder, of the folders that exist; in the order of ``corruptions``.

    The caller reports missing corruptions and severities.

    Raises:
        MissingDataError: the root does not exist, or contains none of the corruptions.
        DataError: a corruption occurs twice.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingDataError(f"{root}: no such folder, expected a folder per corruption, such as {corruptions[0]}")
    found = {name: _severity_folders(root, name) for name in corruptions}
    if not any(found.values()):
        raise MissingDataError(
            f"{root}: found none of {len(corruptions)} corruptions, expected folders such as "
            f"{root / corruptions[0] / '1'}"
        )
    return found


def _severity_folders(root: Path, corruption: str) -> dict[int, Path]:
    candidates = (root / corruption, *(root / archive / corruption for archive in ARCHIVES))
    folders = [folder for folder in candidates if folder.is_dir()]
    if not folders:
        return {}
    if len(folders) > 1:
        raise DataError(f"{root}: found {corruption} twice, as {folders[0]} and {folders[1]}; remove one of them")
    severities = {severity: folders[0] / str(severity) for severity in SEVERITIES}
    return {severity: folder for severity, folder in severities.items() if folder.is_dir()}


def unrecognized_folders(root: str | os.PathLike[str], corruptions: Collection[str]) -> list[str]:
    """Other folders next to those of `corruption_folders`, relative to ``root``. Their names may be misspelt."""
    root = Path(root)
    unrecognized = []
    for parent in (root, *(root / archive for archive in ARCHIVES)):
        known = {*corruptions, *(ARCHIVES if parent == root else ())}
        for entry in sorted_entries(parent) if parent.is_dir() else ():
            if is_folder(entry) and entry.name not in known:
                unrecognized.append(str((parent / entry.name).relative_to(root)))
    return unrecognized
