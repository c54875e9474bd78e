"""A check's outcome, and how it is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        mark: "ok"; "warn": training works, but slowly or not for long; "fail": something does not work.
        found: in words.
        advice: what to do, where it is not well.
        facts: the numbers behind the words, for ``--json``.
    """

    mark: str
    found: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A finding with its check's name and the seconds it took."""

    name: str
    finding: Finding
    seconds: float

    def line(self, width: int) -> str:
        """One line, the name padded to ``width``."""
        text = f"{self.finding.mark:<5} {self.name:<{width}}  {self.finding.found}"
        return " ".join(f"{text}; {self.finding.advice}".splitlines()) if self.finding.advice else text

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self.finding), "seconds": round(self.seconds, 3)}


Check = tuple[str, Callable[[], Finding]]


def ok(found: str, **facts: Any) -> Finding:
    return Finding(OK, found, facts=facts)


def warn(found: str, advice: str, **facts: Any) -> Finding:
    return Finding(WARN, found, advice, facts)


def fail(found: str, advice: str, **facts: Any) -> Finding:
    return Finding(FAIL, found, advice, facts)


def examine(check: Check) -> Result:
    """Run one check; what it raises is its failure, not the tool's."""
    name, look = check
    start = time.perf_counter()
    try:
        finding = look()
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        finding = fail(f"{type(error).__name__}: {lines[0][:200]}", "this check itself did not get through")
    return Result(name, finding, time.perf_counter() - start)
