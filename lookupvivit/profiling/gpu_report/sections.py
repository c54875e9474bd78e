"""The sections of a report, by priority."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lookupvivit.profiling.gpu_report import alternatives, correctness, engine, memory, models, tuning
from lookupvivit.profiling.gpu_report.state import Context, Item, Result


def _nothing(context: Context, results: Mapping[str, Result]) -> None:
    """For sections whose results need no further work."""


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: of its result file.
        seconds: its time budget. Time that it leaves unused goes to later sections.
        items: its measurements, the most important first.
        finish: called with the results so far after each part of the section, also if it is not complete.
    """

    name: str
    seconds: float
    items: Callable[[Context], Iterable[Item]]
    finish: Callable[[Context, Mapping[str, Result]], None] = _nothing


SECTIONS = (
    Section("correctness", 60, correctness.items),
    Section("tuning", 130, tuning.items, tuning.finish),
    Section("alternatives", 80, alternatives.items, alternatives.finish),
    Section("models", 140, models.items),
    Section("memory", 25, memory.items),
    Section("engine", engine.seconds(), engine.items),
)
