"""The results of a report as Markdown, for docs/PERFORMANCE.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import write_text
from lookupvivit.profiling.benchmark_table import format_columns
from lookupvivit.profiling.gpu_report.alternatives import PEAKS, WHOLE
from lookupvivit.profiling.gpu_report.state import Context, Result, SectionState, result_file

Results = Mapping[str, Result]
GB = 1e9


def write_report(context: Context) -> Path:
    """Write `report.md` from the results so far, next to them; returns its path."""
    conditions = context.conditions()
    states = {name: SectionState.load(result_file(context.folder, name), conditions) for name in TITLES}
    file = context.folder / "report.md"
    write_text(file, format_report(states))
    return file


def format_report(states: Mapping[str, SectionState]) -> str:
    """All sections that have results."""
    conditions = next(iter(states.values())).conditions
    lines = [f"Machine: {conditions['machine']}, {conditions['software'].rpartition(', ')[2]}."]
    if conditions["dry_run"]:
        lines.append("A dry run: tiny shapes on a CPU, whose times mean nothing.")
    blocks = [" ".join(lines)]
    peaks = states["alternatives"].results.get(PEAKS, {}) if "alternatives" in states else {}
    for name, state in states.items():
        if not state.results:
            continue
        blocks.append(f"### {TITLES[name]}")
        if not state.complete:
            blocks.append("Not complete.")
        blocks += [table for table in FORMATTERS[name](state.results, peaks) if table]
        blocks += _errors(state.results)
    return "\n\n".join(blocks) + "\n"


def _errors(results: Results) -> list[str]:
    failed = [f"- {key}: {result['error']}" for key, result in results.items() if "error" in result]
    return ["Failed:\n\n" + "\n".join(failed)] if failed else []


def _valid(results: Results) -> list[Result]:
    return [result for result in results.values() if "error" not in result]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], num_text_columns: int = 1) -> str:
    lines = [list(header), *(list(row) for row in rows)]
    return format_columns(lines, num_text_columns, markdown=True) if len(lines) > 1 else ""


def _correctness(results: Results, peaks: Result) -> list[str]:
    rows = []
    for key, result in results.items():
        if "passed" in result:
            errors = result.get("errors", {})
            worst = f"{max(errors.values()):.1e}" if errors else ""
            rows.append([key, worst, "yes" if result["passed"] else "**no**"])
    return [_table(["case (B x H x M x N x d)", "largest relative error", "within bounds"], rows)]


def _tuning(results: Results, peaks: Result) -> list[str]:
    rows = []
    for result in _valid(results):
        seconds = result.get("seconds")
        if not seconds:
            continue
        default, *_ = seconds.values()  # the first candidate
        best = min(seconds, key=lambda tiles: seconds[tiles])
        cells = [f"{1e6 * default:.1f}", best, f"{1e6 * seconds[best]:.1f}", f"{default / seconds[best]:.2f}"]
        rows.append([result["kernel"], result["shape"], *cells, str(len(seconds))])
    header = ["kernel", "shape", "default us", "best (rows, columns, warps, stages)", "us", "x", "timed"]
    return [_table(header, rows, num_text_columns=2)]


def _alternatives(results: Results, peaks: Result) -> list[str]:
    directions, whole = [], []
    for result in _valid(results):
        if result.get("direction") == WHOLE:
            for phase in ("forward", "training"):
                cells = [_milliseconds(result[phase].get(name)) for name in ("triton", "measured", "reference")]
                whole.append([result["shape"], phase, *cells])
            continue
        for name, seconds in result.get("seconds", {}).items():
            rate = result["flops"] / seconds
            bound = max(result["bounds"].values(), default=0.0)
            directions.append(
                [
                    result["direction"],
                    result["shape"],
                    name,
                    _milliseconds(seconds),
                    f"{rate / 1e12:.3g}",
                    f"{100 * rate / peaks['flops']:.0f} %" if peaks.get("flops") else "",
                    f"{100 * bound / seconds:.0f} %" if bound else "",
                ]
            )
    header = ["direction", "shape", "implementation", "ms", "TFLOP/s", "of the matmul peak", "of the roofline"]
    return [
        _describe_peaks(peaks),
        _table(header, directions, num_text_columns=3),
        _table(["shape", "phase", "triton ms", "measured ms", "reference ms"], whole, num_text_columns=2),
        _failures(results),
    ]


def _describe_peaks(peaks: Result) -> str:
    if "flops" not in peaks:
        return ""
    text = f"Measured peaks: {peaks['flops'] / 1e12:.4g} TFLOP/s in a matrix product, {peaks['bytes'] / 1e12:.3g} TB/s"
    exponentials = peaks.get("exponentials")
    return f"{text}{f'; {exponentials / 1e12:.3g} T exponentials/s (data sheet)' if exponentials else ''}."


def _failures(results: Results) -> str:
    lines = [f"- {key}, {name}: {error}" for key, r in results.items() for name, error in r.get("failed", {}).items()]
    return "Not available:\n\n" + "\n".join(lines) if lines else ""


def _models(results: Results, peaks: Result) -> list[str]:
    rows = []
    for result in _valid(results):
        phase = "training" if result["train"] else "forward"
        for name, row in result["models"].items():
            share = f"{100 * row['flops_per_second'] / peaks['flops']:.0f} %" if peaks.get("flops") else ""
            rows.append(
                [
                    name,
                    phase,
                    result["mode"],
                    row["backend"] or "",
                    str(result["batch"]),
                    _spread(row["seconds"], 1e3, 2),
                    _spread(row["ratio"], 1, 2),
                    f"{result['batch'] / row['seconds']['median']:.4g}",
                    share,
                    "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / GB:.2f}",
                ]
            )
    header = ["model", "phase", "mode", "attention", "batch", "ms", "x", "clips/s", "of the matmul peak", "peak GB"]
    return [_table(header, rows, num_text_columns=4)]


def _memory(results: Results, peaks: Result) -> list[str]:
    rows = []
    for key, result in results.items():
        if "estimated_peak" in result:
            cells = [result["estimated_saved"], result["saved"], result["estimated_peak"], result["peak"]]
            rows.append([key, *map(_gigabytes, cells), _percent_more(result["estimated_peak"], result["peak"])])
    return [_table(["step", "saved GB, estimated", "measured", "peak GB, estimated", "measured", "difference"], rows)]


def _engine(results: Results, peaks: Result) -> list[str]:
    skipped = [f"Skipped: {result['skipped']}." for result in results.values() if "skipped" in result]
    rows, failed = [], []
    for result in results.values():
        for run, row in result.get("runs", {}).items():
            if "error" in row:
                failed.append(f"- {run}: {row['error']}")
                continue
            losses, memory = row["losses"], (row["estimated_bytes"], row["peak_bytes"])
            difference = f"{100 * row['difference']:.2g} %" if "difference" in row else ""
            cells = [f"{losses[0]:.4f}", f"{losses[-1]:.4f}", difference, *map(_gigabytes, memory)]
            rows.append([run, *cells, _percent_more(*memory)])
    header = ["precision:ZeRO", "first loss", "last loss", "from fp32", "peak GB, estimated", "measured", "difference"]
    return [*skipped, _table(header, rows), "Failed:\n\n" + "\n".join(failed) if failed else ""]


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.3g}"


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / GB:.3f}"


def _percent_more(estimated: int, measured: int | None) -> str:
    return f"{100 * (estimated / measured - 1):+.0f} %" if measured else ""


def _spread(spread: Mapping[str, Any], unit: float, digits: int) -> str:
    median, low, high = (f"{unit * spread[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


TITLES = {
    "correctness": "Kernels against float64",
    "tuning": "Tiles of the Triton kernels",
    "alternatives": "Implementations of each direction",
    "models": "Models",
    "memory": "Memory of a step without the optimizer",
    "engine": "DeepSpeed",
}
FORMATTERS = {
    "correctness": _correctness,
    "tuning": _tuning,
    "alternatives": _alternatives,
    "models": _models,
    "memory": _memory,
    "engine": _engine,
}
