"""Names of the classes of well-known data sets: one text file each, one name a line, in the order of their ids.

Kinetics, Something-Something V2 and HMDB51 are in alphabetical order, UCF101 in that of its own classInd.txt. Of
ImageNet these are the WordNet ids that its folders are called by, in ascending order; ImageNet-A, -O and -R have 200.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from data_pipelines.io.errors import DataError

FOLDER = Path(__file__).parent
LISTS = (
    "kinetics400",
    "kinetics600",
    "kinetics700",
    "something_something_v2",
    "ucf101",
    "hmdb51",
    "imagenet",
    "imagenet_a",
    "imagenet_o",
    "imagenet_r",
)


@cache
def class_names(name: str) -> tuple[str, ...]:
    """The names of one of `LISTS`; a name's place is its class id.

    Raises:
        DataError: there is no such list.
    """
    if name not in LISTS:
        raise DataError(f"classes: found {name!r}, must be one of {', '.join(LISTS)}")
    return tuple((FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def describe_classes(names: Iterable[str]) -> str:
    """For logs: which of the lists these are, how many, the first and the last."""
    names = tuple(names)
    known = next((name for name in LISTS if class_names(name) == names), "the data's own")
    return f"{known}, {len(names)} names, {names[0]} .. {names[-1]}"
