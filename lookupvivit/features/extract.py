"""Features of every video of a folder or dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data_pipelines.datasets.clip_stream import ClipStream, ViewSelection
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.input_paths import expand_inputs
from data_pipelines.io.progress import progress
from data_pipelines.io.real_paths import require_not_among
from data_pipelines.loader import stream_loader
from data_pipelines.preprocess import Reader, open_any
from lookupvivit.evaluation.array_files import save_arrays
from lookupvivit.features.extractor import FeatureExtractor
from lookupvivit.features.folders import NO_LABEL, feature_file, names_in, open_folder
from lookupvivit.models.base import Model
from lookupvivit.sizes import Size
from lookupvivit.weights.metadata import preprocess_of

Arrays = dict[str, np.ndarray]
Videos = VideoManifest | str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Extraction:
    """What `extract_features` did, on this rank.

    Attributes:
        files: the .npz files of the videos of this rank, those of an earlier call included.
        num_finished: how many of them an earlier call has written.
        failed: reason by name, for each video that cannot be read.
        num_ignored: files in the given folders that are neither videos nor images.
    """

    files: tuple[Path, ...]
    num_finished: int
    failed: dict[str, str]
    num_ignored: int


def extract_features(
    model: Model,
    videos: Videos,
    output: str | os.PathLike[str],
    *,
    views: tuple[int, int] = (1, 1),
    window: float | None = None,
    blocks: Sequence[int] = (),
    half: bool = False,
    compressed_size: Size | None = None,
    batch_size: int = 8,
    workers: int = 0,
    device: torch.device | str = "cpu",
    split: str = "",
    open_reader: Callable[[str], AbstractContextManager[Reader]] = open_any,
    rank: int = 0,
    world_size: int = 1,
) -> Extraction:
    """Write the features of every video into a folder, one .npz file per video; `load_features` reads them.

    Videos that the folder already has features of are skipped. Ranks share the videos and do not communicate. The
    features are bit-identical on any number of ranks and workers, and after an interruption.

    Args:
        model: from `lookupvivit.load_model`, which knows its preprocessing.
        videos: files, folders and patterns, or a dataset, whose labels are also stored.
        output: the folder.
        views: evenly spaced clips of a video, and crops of a clip, as in the multi-view test.
        window: seconds between the starts of clips that cover the video, instead of ``views``.
        blocks: numbers of the blocks whose tokens are also stored, see `FeatureExtractor`; the last one is -1.
        half: store tokens as float16.
        compressed_size: (t, h, w); default: the model's own.
        batch_size: maximal number of clips in one forward pass.
        workers: processes that decode; 0 decodes in this one.
        device: where the model computes.
        split: which part of a dataset it is. A folder has features of one part only.
        open_reader: opens a video for a ``with`` block.
        rank, world_size: which share of the videos is computed.

    Raises:
        DataError: a file does not exist, or the folder has features of another model or with other settings.
        WeightsError: the preprocessing is unknown, the model lacks a block, or a feature is NaN.
    """
    preprocess, selection = preprocess_of(model), ViewSelection(*views, window)
    extractor = FeatureExtractor(model, blocks, compressed_size, half, device)
    inputs = _Inputs.find(videos, Path(output), separate_images=preprocess.sampling.frames == 1)
    extra = {"half": half, "split": split, "class_names": inputs.class_names}
    open_folder(Path(output), _settings(extractor, selection) | extra)
    own = _groups(len(inputs.paths), batch_size, selection)[rank::world_size]
    needed = [group for group in own if not all(inputs.files[index].is_file() for index in group)]
    num_own, num_needed = (sum(map(len, groups)) for groups in (own, needed))
    stream = ClipStream(inputs.paths, needed, preprocess, selection, batch_size, open_reader)
    failed: dict[int, str] = {}
    with progress(total=num_own, initial=num_own - num_needed, unit="video", desc="features", disable=rank > 0) as bar:
        for index, arrays in _features_of_videos(extractor, stream, workers, failed):
            save_arrays(inputs.files[index], inputs.facts(index) | arrays, compress=False)
            bar.update()
    files = tuple(inputs.files[index] for group in own for index in group if index not in failed)
    reasons = {inputs.names[index]: reason for index, reason in failed.items()}
    return Extraction(files, num_own - num_needed, reasons, inputs.num_ignored)


@dataclass(frozen=True)
class _Inputs:
    """The videos, and the files of their features."""

    names: Sequence[str]
    paths: Sequence[str]
    files: Sequence[Path]
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    num_ignored: int = 0

    @classmethod
    def find(cls, videos: Videos, folder: Path, separate_images: bool) -> _Inputs:
        """List the videos; raises as `expand_inputs`, and DataError if a file of features would replace one."""
        if isinstance(videos, VideoManifest):
            names, paths = names_in(videos.paths), videos.paths
            inputs = cls(
                names, paths, [feature_file(folder, name) for name in names], videos.only_labels, videos.class_names
            )
        else:
            found = expand_inputs([videos] if isinstance(videos, str | os.PathLike) else videos, separate_images)
            files = [feature_file(folder, name) for name in found.paths]
            labels = np.full(len(files), NO_LABEL)
            inputs = cls(list(found.paths), list(found.paths.values()), files, labels, (), found.num_ignored)
        require_not_among(inputs.files, inputs.paths)
        return inputs

    def facts(self, index: int) -> Arrays:
        """What a file has in addition to the features."""
        name, path, label = self.names[index], self.paths[index], self.labels[index]
        return {"name": np.array(name), "path": np.array(path), "label": np.array(label, np.int64)}


def _settings(extractor: FeatureExtractor, selection: ViewSelection) -> dict[str, Any]:
    """What the features of all videos in a folder have in common."""
    model = extractor.model
    return {
        "model": weights_digest(model),
        "preprocessing": preprocess_of(model).to_dict(),
        "views": f"{selection.num_clips}x{selection.num_crops}" if selection.window is None else None,
        "window": selection.window,
        "compressed_size": extractor.compressed_size or getattr(model, "compressed_size", None),
        "streams": extractor.streams,
        "blocks": extractor.blocks,
    }


def _groups(num_videos: int, batch_size: int, selection: ViewSelection) -> list[range]:
    """Indices of videos whose views share batches; independent of ranks and of what is finished."""
    views = selection.num_clips * selection.num_crops
    size = max(1, batch_size // views) if selection.window is None else 1
    return [range(start, min(start + size, num_videos)) for start in range(0, num_videos, size)]


def _features_of_videos(
    extractor: FeatureExtractor, stream: ClipStream, workers: int, failed: dict[int, str]
) -> Iterator[tuple[int, Arrays]]:
    """Yield the index of each video, and its features and views; add the reasons of others to ``failed``."""
    parts: dict[int, list[Arrays]] = {}  # of videos of which not all views have been read
    for batch in stream_loader(stream, workers):
        if len(batch["video"]):
            columns = {name: batch[name] for name in ("start", "end", "clip_index", "aug_index")}
            columns |= extractor(batch["video"])
            for index in np.unique(batch["video_index"]).tolist():
                rows = batch["video_index"] == index
                parts.setdefault(index, []).append({name: column[rows] for name, column in columns.items()})
        for index in batch["finished"]:
            views = parts.pop(index)
            yield index, {name: np.concatenate([part[name] for part in views]) for name in views[0]}
        failed |= batch["failed"]
        for index in batch["failed"]:
            parts.pop(index, None)


def weights_digest(model: nn.Module) -> str:
    """The 128-bit BLAKE2b hash of a model's weights, as 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())  # of any dtype
    return digest.hexdigest()
