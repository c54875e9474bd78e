"""What a user means by files, folders and patterns on a command line."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from data_pipelines.io.errors import MissingDataError
from data_pipelines.io.files import is_video
from data_pipelines.video.backends import PICTURES


@dataclass
class Found:
    """Videos, and how they were told apart.

    Attributes:
        paths: videos, pictures and folders of pictures by the name to call them by, in the order they were asked for.
        ignored: files in the folders that are none of these.
    """

    paths: dict[str, str] = field(default_factory=dict)
    ignored: int = 0

    def add(self, path: str, name: str) -> None:
        """Take up a video once; another one of the same name gets a number."""
        if path in self.paths.values():
            return
        (stem, suffix), free, count = os.path.splitext(name), name, 1
        while free in self.paths:
            count += 1
            free = f"{stem} ({count}){suffix}"
        self.paths[free] = path


def find_videos(asked: Iterable[str | os.PathLike[str]], single_pictures: bool = False) -> Found:
    """The videos that files, folders and patterns such as ``clips/*.mp4`` name.

    A file is taken whatever its name is. Folders are searched with all their folders, names with a dot in front passed
    over; one that holds pictures and no video is one video, frame by frame, or with ``single_pictures`` (for image
    models) a collection of them. Names are relative to the folder that was asked for.

    Raises:
        MissingDataError: nothing of that name, or a folder without any video or picture.
    """
    found = Found()
    for one in map(os.fspath, asked):
        if os.path.exists(one):
            _add(found, one, single_pictures)
            continue
        matches = sorted(glob.glob(one, recursive=True)) if glob.has_magic(one) else []
        if not matches:
            raise MissingDataError(f"{one}: {'matches no' if glob.has_magic(one) else 'no such'} file or folder")
        for match in matches:
            _add(found, match, single_pictures)
    return found


def _add(found: Found, path: str, single_pictures: bool) -> None:
    if not os.path.isdir(path):
        found.add(path, os.path.basename(path))
        return
    before = len(found.paths), found.ignored
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = sorted(name for name in files if not name.startswith("."))
        videos, pictures = ([name for name in files if test(name)] for test in (is_video, _is_picture))
        found.ignored += len(files) - len(videos) - len(pictures)
        if pictures and not videos and not single_pictures:
            found.add(folder, os.path.relpath(folder, path) if folder != path else _name(path))
            continue
        for name in files:
            if is_video(name) or _is_picture(name):
                file = os.path.join(folder, name)
                found.add(file, os.path.relpath(file, path))
    if len(found.paths) == before[0]:
        others = f", {found.ignored - before[1]} other files" if found.ignored > before[1] else ""
        raise MissingDataError(f"{path}: a folder without any video or picture{others}")


def _name(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder)) or "videos"


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)
