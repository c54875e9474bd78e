"""Class names of well-known datasets: one text file each, one name per line, in the order of the class ids.

Kinetics, Something-Something V2 and HMDB51 are in alphabetical order; UCF101 has the order of its classInd.txt.
ImageNet's names are the WordNet ids of its folders, in ascending order; ImageNet-A, -O and -R have 200 of them each.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from data_pipelines.io.errors import DataError
from data_pipelines.io.text import one_line

FOLDER = Path(__file__).parent
CLASS_LISTS = (
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
def class_names(class_list: str) -> tuple[str, ...]:
    """The names of one of `CLASS_LISTS`; the position of a name is its class id.

    Raises:
        DataError: there is no such list.
    """
    if class_list not in CLASS_LISTS:
        raise DataError(f"class list: found {class_list!r}, expected one of {', '.join(CLASS_LISTS)}")
    return tuple((FOLDER / f"{class_list}.txt").read_text(encoding="utf-8").splitlines())


def describe_classes(names: Iterable[str]) -> str:
    """A summary for logs: the list that the names form, their number, the first and the last name."""
    names = tuple(names)
    source = next((name for name in CLASS_LISTS if class_names(name) == names), "custom")
    return one_line(f"{source}, {len(names)} names, {names[0]} .. {names[-1]}")
