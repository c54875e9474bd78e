"""The outcome of a check, and how it is printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

OK, WARN, FAIL = "ok", "warn", "fail"
MAX_MESSAGE_LENGTH = 200  # characters of other programs' messages


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        mark: "ok"; "warn": training works, but slowly or not for long; "fail": something does not work.
        found: the result as text.
        advice: what to do, unless the mark is "ok".
        facts: the numbers behind the text, for ``--json``.
    """

    mark: str
    found: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Check(NamedTuple):
    """A named check."""

    name: str
    run: Callable[[], Finding]


@dataclass(frozen=True)
class Result:
    """The finding of a named check, and the seconds that it took."""

    name: str
    finding: Finding
    seconds: float

    def line(self, width: int) -> str:
        """One line of text, with the name padded to ``width`` characters."""
        advice = f"; {self.finding.advice}" if self.finding.advice else ""
        text = f"{self.finding.mark:<5} {self.name:<{width}}  {self.finding.found}{advice}"
        return " ".join(text.splitlines())

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON."""
        return {"name": self.name, **asdict(self.finding), "seconds": round(self.seconds, 3)}


def ok(found: str, **facts: Any) -> Finding:
    """A finding that needs no action."""
    return Finding(OK, found, facts=facts)


def warn(found: str, advice: str, **facts: Any) -> Finding:
    """A finding that limits training."""
    return Finding(WARN, found, advice, facts)


def fail(found: str, advice: str, **facts: Any) -> Finding:
    """A finding that prevents training."""
    return Finding(FAIL, found, advice, facts)


def run_check(check: Check) -> Result:
    """Run one check. An exception is a failure of the check, not of the tool."""
    start = time.perf_counter()
    try:
        finding = check.run()
    except Exception as error:
        message = (str(error).strip().splitlines() or ["no message"])[0][:MAX_MESSAGE_LENGTH]
        finding = fail(f"{type(error).__name__}: {message}", "the check raised this unexpected error")
    return Result(check.name, finding, time.perf_counter() - start)
