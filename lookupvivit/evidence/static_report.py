"""Token keeping on static footage as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from lookupvivit.evidence.static_footage import SELECTIONS, Row
from lookupvivit.profiling.timing import Spread


def to_markdown(rows: Sequence[Row], caption: str) -> str:
    """Tables of cost and, where it was measured, of the change of the logits."""
    lines = ["| clips | batches | rule | kept, % | full, ms | motion, ms | speed: motion | speed: uniform |"]
    lines.append("|" + "---|" * 8)
    for row in rows:
        low, median, high = (100 * share for share in row.share)
        kept = f"{median:.0f} ({low:.0f} to {high:.0f})" if low < high else f"{median:.0f}"
        times = [f"{row.milliseconds[name]:.1f}" for name in ("full", "motion")]
        speeds = [f"{_spread(row.speed[name], 1, 2)} x" for name in ("motion", "uniform")]
        lines.append(f"| {' | '.join([row.clips, str(row.batches), row.rule, kept, *times, *speeds])} |")
    compared = [row for row in rows if row.changes]
    if compared:
        columns = [f"{kind}: {name}" for kind in ("change of logits, %", "other class, %") for name in SELECTIONS]
        lines += ["", f"| clips | rule | {' | '.join(columns)} |", "|" + "---|" * 8]
        for row in compared:
            changes = [_spread(row.changes[name], 100, 1) for name in SELECTIONS]
            flips = [f"{100 * row.flips[name]:.1f}" for name in SELECTIONS]
            lines.append(f"| {' | '.join([row.clips, row.rule, *changes, *flips])} |")
    return "\n".join([*lines, "", f"Medians and quartiles; times are CPU times per clip. {caption}.", ""])


def _spread(spread: Spread, factor: float, digits: int) -> str:
    median, low, high = (f"{factor * value:.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low} to {high})"
