"""Split videos into training and validation so that the clips of one source are never on both sides.

A source is a long video that was cut into clips, a person, or a camera. The list of videos may name it in a column
``group``. Otherwise it is derived from file names: those of a source are the same apart from the numbers at their end,
such as ``trip_scene-003``, ``v_YoYo_g01_c02``, ``person0_v1`` or ``R6llTwEh07w_000059_000069``.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError
from data_pipelines.io.text import ENCODING, one_line

_NUMBER_AT_END = re.compile(r"[ _.(-]+[A-Za-z]{0,8}[ _.(-]*\d+\)?$")  # with a separator before it
MAX_NUMBERS = 3  # at the end of a name, such as start and end


def split_by_group(manifest: VideoManifest, fraction: float) -> dict[str, VideoManifest]:
    """Hold out groups with about ``fraction`` of the videos of every class; "train" and "val" with `selection`.

    The split depends on the names alone. Of names with several numbers at the end, as many are ignored as leave enough
    groups: every class with two videos or more must be on both sides, and the fraction within a factor of two.

    Raises:
        DataError: no group can be held out.
    """
    candidates = _candidates(manifest)
    for origin, groups in candidates:
        held_out = _hold_out(manifest, groups, fraction)
        is_last = groups is candidates[-1][1]
        if held_out.any() and (is_last or _is_balanced(manifest, held_out, fraction)):
            return {
                split: _part(manifest, groups, np.flatnonzero(held_out == (split == "val")), origin)
                for split in ("train", "val")
            }
    raise DataError(f"{manifest.source}: no group can be held out without losing a class; found {len(manifest)} videos")


def _candidates(manifest: VideoManifest) -> list[tuple[str, list[str]]]:
    """Where groups come from, and the group of each video; from few groups to many."""
    if manifest.groups is not None:
        return [("in the list", list(manifest.groups))]
    labels = manifest.first_labels.tolist()
    names = [_stem(path, manifest.class_names[k]) for path, k in zip(manifest.paths, labels, strict=True)]
    levels = [("by file name", names)]
    for _ in range(MAX_NUMBERS):
        names = [_NUMBER_AT_END.sub("", name) or name for name in names]
        if names != levels[-1][1]:
            levels.append(("by file name without numbers at its end", names))
    levels[0] = ("of one video each", list(manifest.paths))
    return levels[::-1]


def _stem(path: str, class_name: str) -> str:
    """The file name without its suffix and without the name of its class, which does not name a source."""
    words = re.escape(class_name).replace(r"\ ", "[ _]")
    return re.sub(rf"(?<![^\W_]){words}(?![^\W_])", "", PurePath(path).stem, flags=re.IGNORECASE)


def _hold_out(manifest: VideoManifest, groups: Sequence[str], fraction: float) -> np.ndarray:
    """Which videos are held out, bool (N,).

    Groups are visited in the order of their hashes. One is taken if that brings the classes closer to their targets and
    leaves training videos of each.
    """
    membership = manifest.class_membership()  # (N, K)
    numbers = {group: number for number, group in enumerate(sorted(set(groups), key=_digest))}
    of_video = np.array([numbers[group] for group in groups])
    totals, held = membership.sum(axis=0), np.zeros(membership.shape[1])
    several = totals > 1
    targets = np.where(several, np.maximum(fraction * totals, 1), 0)  # (K,)
    order = np.argsort(of_video, kind="stable")
    taken = np.zeros(len(numbers), dtype=bool)
    for videos in np.split(order, np.flatnonzero(np.diff(of_video[order])) + 1):
        added = membership[videos].sum(axis=0)
        gain = ((held - targets) ** 2 - (held + added - targets) ** 2).sum()
        if gain > 0 and not (several & (held + added >= totals)).any():
            held = held + added
            taken[of_video[videos[0]]] = True
    return taken[of_video]


def _is_balanced(manifest: VideoManifest, held_out: np.ndarray, fraction: float) -> bool:
    membership = manifest.class_membership()
    totals, held = membership.sum(axis=0), membership[held_out].sum(axis=0)
    has_both = (held > 0) & (held < totals) | (totals < 2)
    return bool(has_both.all()) and fraction / 2 <= held_out.mean() <= 2 * fraction


def _part(manifest: VideoManifest, groups: Sequence[str], indices: np.ndarray, origin: str) -> VideoManifest:
    own, everything = Counter(groups[index] for index in indices.tolist()), len(set(groups))
    largest = max(own, key=lambda group: (own[group], group))
    example = "" if own[largest] == 1 else f"; {own[largest]} of {one_line(repr(largest))}"
    selection = f"{len(own)} of {everything} groups {origin}{example}"
    return replace(manifest.select(indices.tolist()), selection=selection)


def _digest(group: str) -> bytes:
    return hashlib.blake2b(group.encode(*ENCODING), digest_size=8).digest()
