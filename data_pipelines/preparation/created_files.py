"""The files that dataset preparation has created in an output folder: it replaces no others.

`.created_files.jsonl` in the folder has one path per line, relative to the folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from data_pipelines.io.atomic import PREFIX, write_text
from data_pipelines.io.errors import DataError
from data_pipelines.io.real_paths import AnyPath, require_not_among
from data_pipelines.preparation.scanning import read_records

RECORD = ".created_files.jsonl"
SKIP_LIST, CLASSES = "skip.txt", "classes.txt"


def claim(folder: Path, outputs: Collection[Path], inputs: Collection[AnyPath]) -> None:
    """Record files in ``folder`` before they are written, and remove what a killed call had not completely written.

    Args:
        folder: the output folder.
        outputs: the files to write, in ``folder``.
        inputs: the files that are read.

    Raises:
        DataError: an output is an input, or exists and was not created by dataset preparation.
    """
    require_not_among(outputs, inputs)
    created = set(_read(folder))
    for file in outputs:
        if _relative(folder, file) not in created and os.path.lexists(file):
            raise DataError(
                f"{file}: exists and was not created by this tool, which would replace it; move it, or choose another "
                "output"
            )
    created.update(_relative(folder, file) for file in outputs)
    # ASCII, because file names need not be UTF-8.
    write_text(folder / RECORD, "".join(f"{json.dumps(name)}\n" for name in sorted(created)))
    _remove_unfinished(outputs)


def _remove_unfinished(outputs: Iterable[AnyPath]) -> None:
    """Remove what a killed call had not completely written: folders of `atomic_files` with nothing but outputs."""
    names: dict[str, set[str]] = {}
    for file in outputs:
        names.setdefault(os.path.dirname(file), set()).add(os.path.basename(file))
    for folder, own in names.items():
        for temporary in Path(folder).glob(f"{PREFIX}*"):
            if not temporary.is_symlink() and temporary.is_dir() and set(os.listdir(temporary)) <= own:
                shutil.rmtree(temporary, ignore_errors=True)


def _relative(folder: Path, file: AnyPath) -> str:
    return os.path.relpath(file, folder)


def _read(folder: Path) -> Iterator[str]:
    """The recorded files, relative to the folder."""
    record = folder / RECORD
    if not record.exists():
        yield from _created_before_records(folder)
        return
    try:
        for line in record.read_text(encoding="utf-8").splitlines():
            yield str(json.loads(line))
    except ValueError as error:
        raise DataError(f"{record}: cannot be read ({error}); remove it if nothing in {folder} is precious") from None


def _created_before_records(folder: Path) -> Iterator[str]:
    """The files of version 0.1, which kept no record: scans show what was written next to them."""
    for scan in folder.glob("*_videos.csv"):
        yield from (scan.name, SKIP_LIST)
        copies = [record.copy for record in read_records(scan) if record.copy]
        split = scan.name.removesuffix("_videos.csv")
        if copies:
            yield f"{split}.csv"
        if copies or any(folder.glob(f"{split}-*.tar")):
            yield CLASSES
        yield from (_relative(folder, copy) for copy in copies)
