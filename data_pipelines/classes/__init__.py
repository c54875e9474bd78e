"""The classes of the public data sets, one text file each with a name a line, in the order of their ids."""

from __future__ import annotations

from importlib.resources import files


def class_names(data_set: str) -> tuple[str, ...]:
    """Names of the classes of "kinetics400", "kinetics600", "kinetics700", "something_something_v2", "ucf101" or
    "hmdb51", in the order of their ids."""
    return tuple(files(__package__).joinpath(f"{data_set}.txt").read_text(encoding="utf-8").splitlines())
