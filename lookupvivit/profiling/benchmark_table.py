"""A benchmark as text, in aligned columns or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from lookupvivit.profiling.benchmark import Benchmark, Phase, Row
from lookupvivit.profiling.operator_times import Breakdown
from lookupvivit.profiling.timing import Spread

Cells = Sequence[str]


def legend(found: Benchmark) -> str:
    """Where and how it was measured, and what the columns mean."""
    setting, training = found.setting, "training" in found.rows[0].phases
    device = "allocated on the GPU" if setting.torch_device.type == "cuda" else "resident, above what the imports take"
    told = [
        f"{found.machine}; {setting.dtype}{', torch.compile' if setting.compile else ''}, batch {setting.batch}.",
        f"Medians of {found.rounds} interleaved rounds, quartiles in brackets; x: as fast as the first line, round by "
        "round.",
        "GFLOPs: multiply-adds of one clip by the equations, also where fewer are done. "
        f"MFU of {found.peak_flops / 1e12:.3g} TFLOP/s ({found.peak_source}).",
    ]
    if any(phase.peak_bytes is not None for row in found.rows for phase in row.phases.values()):
        compiler = " and with what compiling took" if setting.compile else ""
        told.append(f"peak: memory {device}, in a process of its own{compiler}.")
        if training:
            told.append("kept: for the backward pass, weights and input left out.")
    if training:
        told.append("A training step is forward pass, backward pass and SGD with momentum.")
    return "\n".join(told)


def tables(found: Benchmark, markdown: bool = False) -> str:
    """Forward passes, a line per model, and below them training steps if there are any."""
    return "\n\n".join(_table(found.rows, phase, markdown) for phase in found.rows[0].phases)


def operator_table(row: Row, markdown: bool = False) -> str:
    """A line per operator of a forward pass of the whole batch, and their sum; GFLOPs are those really done."""
    found: Breakdown = row.operators
    lines = [["operator", "ms", "share", "GFLOPs", "share", "GFLOP/s"]]
    macs = sum(operator.macs for operator in found.operators)
    whole = (*((each.label, each.seconds, each.macs) for each in found.operators), ("sum", found.seconds, macs))
    for label, seconds, work in whole:
        rate = f"{2 * work / seconds / 1e9:.0f}" if work else ""
        lines.append(
            [
                label,
                f"{1e3 * seconds:.2f}",
                f"{100 * seconds / found.seconds:.1f} %",
                f"{work / 1e9:.2f}",
                f"{100 * work / macs:.1f} %",
                rate,
            ]
        )
    lines.append(["the same, not watched", f"{1e3 * found.unwatched:.2f}", "", "", "", ""])
    return lay_out(lines, left=1, markdown=markdown)


def lay_out(lines: Sequence[Cells], left: int, markdown: bool = False) -> str:
    """Cells in columns, the first line being the header.

    Args:
        left: columns of words; the others are numbers, and stand to the right.
    """
    if markdown:
        rule = ["---" if i < left else "---:" for i in range(len(lines[0]))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(cells)).rstrip()
        for cells in lines
    )


def _table(rows: Sequence[Row], phase: str, markdown: bool) -> str:
    forward, first = phase == "forward", rows[0].phases[phase]
    header = ["model", "kernels", "input", "N", "M", "parameters", "GFLOPs"] if forward else ["model", "kernels"]
    header += [f"{phase} ms", "x", "clips/s" if forward else "steps/s", "MFU"]
    header += ["peak GB"] * (first.peak_bytes is not None) + ["kept GB"] * (first.kept_bytes is not None)
    lines = [[*(_model(row) if forward else _model(row)[:2]), *_speed(row.phases[phase])] for row in rows]
    return lay_out([header, *lines], left=2, markdown=markdown)


def _model(row: Row) -> Cells:
    size = "x".join(map(str, row.input_size if row.input_size[0] > 1 else row.input_size[1:]))
    counts = ["" if count is None else str(count) for count in (row.lookup_tokens, row.compressed_tokens)]
    return [row.model, row.kernels or "", size, *counts, f"{row.parameters / 1e6:.1f} M", f"{row.gflops:.2f}"]


def _speed(phase: Phase) -> Cells:
    cells = [
        _spread(phase.seconds, 1e3, 1),
        _spread(phase.ratio, 1, 2),
        f"{phase.per_second:.3g}",
        f"{100 * phase.mfu:.0f} %",
    ]
    return cells + [f"{size / 1e9:.3f}" for size in (phase.peak_bytes, phase.kept_bytes) if size is not None]


def _spread(found: Spread, unit: float, digits: int) -> str:
    median, low, high = (f"{unit * value:.{digits}f}" for value in (found.median, found.low, found.high))
    return f"{median} ({low}-{high})"
