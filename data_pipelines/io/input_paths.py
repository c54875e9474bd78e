"""Expand files, folders and glob patterns given on the command line."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

from data_pipelines.io.errors import MissingDataError
from data_pipelines.io.listing import is_hidden, is_image, is_video


@dataclass
class Inputs:
    """Videos and images to process.

    Attributes:
        paths: unique name -> path of a video, an image or a folder of images, in the order of the arguments.
        num_ignored: number of files in the folders that are neither videos nor images.
    """

    paths: dict[str, str] = field(default_factory=dict)
    num_ignored: int = 0


@dataclass
class _Found:
    """What was found so far.

    Attributes:
        names: of each path, without regard to the other names.
        num_ignored: as in `Inputs`.
    """

    names: dict[str, str] = field(default_factory=dict)
    num_ignored: int = 0
    _files: set[str] = field(default_factory=set)

    def add(self, path: str, name: str) -> None:
        """Add a path, unless it was added before, perhaps in another spelling."""
        folder, base = os.path.split(path)
        file = os.path.realpath(path) if os.path.isdir(path) else os.path.join(os.path.realpath(folder), base)
        if file not in self._files:
            self._files.add(file)
            self.names[path] = name


def expand_inputs(arguments: Iterable[str | os.PathLike[str]], separate_images: bool = False) -> Inputs:
    """Find the videos and images that files, folders and patterns such as ``clips/*.mp4`` refer to.

    A file is accepted whatever its suffix. Folders are searched recursively; hidden files and folders are skipped. The
    name of a file found in a folder is its path relative to that folder. Equal names of several folders are preceded by
    the folders.

    Args:
        arguments: files, folders and patterns.
        separate_images: whether each image of a folder without videos is one input (for image models). If False, such a
            folder is one video, whose frames are the images.

    Raises:
        MissingDataError: a file does not exist, a pattern matches nothing, or a folder has no videos and images.
    """
    found = _Found()
    for argument in arguments:
        for path in _matches(os.fspath(argument)):
            if os.path.isdir(path):
                _add_folder(found, path, separate_images)
            else:
                found.add(path, os.path.basename(path))
    return Inputs(_with_unique_names(found.names), found.num_ignored)


def _with_unique_names(names: dict[str, str]) -> dict[str, str]:
    """Paths by name. Equal names are preceded by as many parent folders as distinguish them: a/1.mp4 and b/1.mp4."""
    parts = {path: PurePath(os.path.abspath(path)).parts[1:] for path in names}  # without the root
    depth = {path: len(PurePath(name).parts) for path, name in names.items()}
    names = dict(names)
    while True:
        uses = Counter(names.values())
        ambiguous = [path for path, name in names.items() if uses[name] > 1 and depth[path] < len(parts[path])]
        if not ambiguous:
            break
        for path in ambiguous:
            depth[path] += 1
            names[path] = str(PurePath(*parts[path][-depth[path] :]))
    paths: dict[str, str] = {}
    for path, name in names.items():
        number, (stem, suffix) = 1, os.path.splitext(name)
        while name in paths:  # paths with links may have the same folders
            number += 1
            name = f"{stem} ({number}){suffix}"
        paths[name] = path
    return paths


def _matches(argument: str) -> list[str]:
    """Return the matches of a pattern. A path that exists matches itself only, even if it contains ``[`` or ``*``."""
    if os.path.exists(argument):
        return [argument]
    if not glob.has_magic(argument):
        raise MissingDataError(f"{argument}: no such file or folder")
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise MissingDataError(f"{argument}: matches no file or folder")
    return matches


def _add_folder(found: _Found, root: str, separate_images: bool) -> None:
    """Add the videos and images below ``root``."""
    num_files = num_media = 0
    visited = {os.path.realpath(root)}  # links to other folders are followed, as in class folders, but not in circles
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = _new_folders(folder, subfolders, visited)  # in place: os.walk reads it
        names = sorted(name for name in names if not is_hidden(name))
        media = [name for name in names if is_video(name) or is_image(name)]
        num_files, num_media = num_files + len(names), num_media + len(media)
        if media and all(map(is_image, media)) and not separate_images:
            found.add(folder, os.path.relpath(folder, root) if folder != root else _folder_name(root))
            continue
        for name in media:
            file = os.path.join(folder, name)
            found.add(file, os.path.relpath(file, root))
    found.num_ignored += num_files - num_media
    if not num_media:
        raise MissingDataError(f"{root}: found no video or image among {num_files} files, expected at least one")


def _new_folders(parent: str, names: list[str], visited: set[str]) -> list[str]:
    """The names of the subfolders to read, sorted: not hidden, and no link into a folder that is read anyway.

    Args:
        visited: real paths of such folders, to which the targets of links are added.
    """
    new = []
    for name in sorted(name for name in names if not is_hidden(name)):
        path = os.path.join(parent, name)
        if os.path.islink(path):
            real = os.path.realpath(path)
            if any(os.path.commonpath([real, folder]) in (real, folder) for folder in visited):
                continue
            visited.add(real)
        new.append(name)
    return new


def _folder_name(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder)) or "videos"
