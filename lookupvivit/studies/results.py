"""Results of a study: one row per variant and compressed size, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import mean
from typing import Any

from lookupvivit.evaluation.metrics import half_interval
from lookupvivit.sizes import parse_token_setting
from lookupvivit.studies.jobs import full_setting, read_result
from lookupvivit.studies.plan import Job, Study


@dataclass(frozen=True)
class Row:
    """One variant at one compressed size.

    Attributes:
        variant: its name.
        setting: the value that its search chose, such as "0.001"; "" without a search.
        compressed_size: TxHxW; "" for models without compressed tokens.
        is_own_size: whether the model was trained at this size.
        gflops: per view, multiply-adds; NaN if the cost of an operator is unknown.
        top1: mean over the seeds, per cent.
        half_interval: half of the 95 % interval of the mean over seeds (Student's t), per cent; None for one seed.
        seeds: number of runs.
        minutes: mean duration of a training; None if all were interrupted.
        scores: top-1 of each seed, per cent.
    """

    variant: str
    setting: str
    compressed_size: str
    is_own_size: bool
    gflops: float
    top1: float
    half_interval: float | None
    seeds: int
    minutes: float | None
    scores: tuple[float, ...]


def collect(study: Study, jobs: Sequence[Job]) -> list[Row]:
    """The rows of all finished jobs, in the order of the variants, own size first."""
    finished = [(job, result) for job in jobs if (result := read_result(job)) is not None and result["tests"]]
    rows = []
    for name in study.variants:
        results = [(job, result) for job, result in finished if job.variant == name]
        tests: dict[tuple[bool, str], list[dict[str, Any]]] = {}
        for _, result in results:
            for test in _tests_of(study, result):
                key = not test["is_own_size"], test["compressed_size"] or ""
                tests.setdefault(key, []).append(test)
        for (is_other, size), entries in sorted(tests.items()):
            scores = [entry["top1"] for entry in entries]
            durations = [result["training_seconds"] for _, result in results if result["training_seconds"]]
            rows.append(
                Row(
                    variant=name,
                    setting=_setting(study, results[0][0]),
                    compressed_size=size,
                    is_own_size=not is_other,
                    gflops=math.nan if entries[0]["gflops"] is None else entries[0]["gflops"],
                    top1=mean(scores),
                    half_interval=half_interval(scores),
                    seeds=len(scores),
                    minutes=mean(durations) / 60 if durations else None,
                    scores=tuple(scores),
                )
            )
    return rows


def _tests_of(study: Study, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The tests of a run that the study asks for; other studies with the same runs may have asked for others."""
    own = next((test["compressed_size"] for test in result["tests"] if test["is_own_size"]), None)
    own_size = parse_token_setting(own).compressed_size if own else None
    wanted = {own, *(full_setting(own_size, tokens) for tokens in study.test_sizes)}
    return [test for test in result["tests"] if test["compressed_size"] in wanted]


def _setting(study: Study, job: Job) -> str:
    if study.search is None:
        return ""
    value = job.settings[study.search.key]
    return f"{value:g}" if isinstance(value, float) else str(value)


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row) | {"scores": " ".join(f"{score:.2f}" for score in row.scores)})
    return text.getvalue()


def to_markdown(study: Study, rows: Sequence[Row], machine: str) -> str:
    """The rows as a table, under the study's title and above the machine."""
    has_search = study.search is not None
    header = ["variant", *([study.search.key] if study.search else []), "compressed size", "GFLOPs", "top-1 %"]
    header += ["of each seed", "minutes per training"]
    lines = [f"### {study.title}", "", _line(header), _line(["---"] * len(header))]
    for row in rows:
        score = f"{row.top1:.1f}" + ("" if row.half_interval is None else f" ± {row.half_interval:.1f}")
        size = row.compressed_size or "-"
        cells = [row.variant, *([row.setting] if has_search else [])]
        cells += [
            size if row.is_own_size else f"{size} (not its own)",
            "unknown" if math.isnan(row.gflops) else f"{row.gflops:.4g}",
            score,
            ", ".join(f"{one:.1f}" for one in row.scores),
        ]
        lines.append(_line([*cells, "-" if row.minutes is None else f"{row.minutes:.1f}"]))
    return "\n".join([*lines, "", f"GFLOPs are multiply-adds per view. {machine}.", ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
