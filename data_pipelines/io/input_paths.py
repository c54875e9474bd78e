"""Expand files, folders and glob patterns given on the command line."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

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

    def add(self, path: str, name: str) -> None:
        """Add a path unless it was added before. A number makes a repeated name unique: ``a (2).mp4``."""
        if path in self.paths.values():
            return
        stem, suffix = os.path.splitext(name)
        unique_name, number = name, 1
        while unique_name in self.paths:
            number += 1
            unique_name = f"{stem} ({number}){suffix}"
        self.paths[unique_name] = path


def expand_inputs(arguments: Iterable[str | os.PathLike[str]], separate_images: bool = False) -> Inputs:
    """Find the videos and images that files, folders and patterns such as ``clips/*.mp4`` refer to.

    A file is accepted whatever its suffix. Folders are searched recursively; hidden files and folders are skipped. The
    name of a file found in a folder is its path relative to that folder.

    Args:
        arguments: files, folders and patterns.
        separate_images: whether each image of a folder without videos is one input (for image models). If False, such a
            folder is one video, whose frames are the images.

    Raises:
        MissingDataError: a file does not exist, a pattern matches nothing, or a folder has no videos and images.
    """
    inputs = Inputs()
    for argument in arguments:
        for path in _matches(os.fspath(argument)):
            if os.path.isdir(path):
                _add_folder(inputs, path, separate_images)
            else:
                inputs.add(path, os.path.basename(path))
    return inputs


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


def _add_folder(inputs: Inputs, root: str, separate_images: bool) -> None:
    """Add the videos and images below ``root``."""
    num_paths, num_ignored = len(inputs.paths), inputs.num_ignored
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))  # in place: os.walk reads it
        names = sorted(name for name in names if not is_hidden(name))
        media = [name for name in names if is_video(name) or is_image(name)]
        inputs.num_ignored += len(names) - len(media)
        if media and all(map(is_image, media)) and not separate_images:
            inputs.add(folder, os.path.relpath(folder, root) if folder != root else _folder_name(root))
            continue
        for name in media:
            file = os.path.join(folder, name)
            inputs.add(file, os.path.relpath(file, root))
    if len(inputs.paths) == num_paths:
        num_files = inputs.num_ignored - num_ignored
        raise MissingDataError(f"{root}: found no video or image among {num_files} files, expected at least one")


def _folder_name(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder)) or "videos"
