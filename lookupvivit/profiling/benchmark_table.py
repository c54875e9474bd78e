"""A benchmark as text, in aligned columns or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from lookupvivit.profiling.benchmark import Benchmark, Phase, Row
from lookupvivit.profiling.operator_times import OperatorTimes
from lookupvivit.profiling.timing import Spread
from lookupvivit.sizes import format_size

Cells = Sequence[str]


def format_legend(benchmark: Benchmark) -> str:
    """Where and how the benchmark ran, and what the columns mean."""
    setting, training = benchmark.setting, "training" in benchmark.rows[0].phases
    compiled = ", torch.compile" if setting.compile else ""
    lines = [
        f"{benchmark.machine}; {setting.dtype}{compiled}, batch {setting.batch}.",
        f"Medians of {benchmark.rounds} interleaved rounds, quartiles in parentheses; "
        "x: speed relative to the first row, round by round.",
        "GFLOPs: multiply-adds of one clip by the equations, also where kernels perform fewer.",
        f"MFU: share of {benchmark.peak_flops / 1e12:.3g} TFLOP/s ({benchmark.peak_source}), "
        "where a multiply-add counts as two FLOPs.",
    ]
    if any(phase.peak_bytes is not None for row in benchmark.rows for phase in row.phases.values()):
        on_gpu = setting.torch_device.type == "cuda"
        memory = "memory allocated on the GPU" if on_gpu else "resident memory above that after the imports"
        compiler = ", including the compiler's" if setting.compile else ""
        lines.append(f"peak: {memory}, each row in its own process{compiler}.")
        if training:
            lines.append("kept: saved for the backward pass, without weights and input.")
    if training:
        lines.append("training: a forward pass, a backward pass and an update of SGD with momentum.")
    return "\n".join(lines)


def format_tables(benchmark: Benchmark, markdown: bool = False) -> str:
    """A table of forward passes and, if measured, one of training steps; one row per case."""
    return "\n\n".join(_format_table(benchmark.rows, phase, markdown) for phase in benchmark.rows[0].phases)


def format_operator_table(times: OperatorTimes, markdown: bool = False) -> str:
    """One row per operator of a forward pass of the whole batch, and their sum."""
    total_macs = sum(operator.macs for operator in times.operators)
    rows = [(operator.label, operator.seconds, operator.macs) for operator in times.operators]
    rows.append(("sum", times.seconds, total_macs))
    lines = [["operator", "ms", "share", "GFLOPs", "share", "GFLOPs/s"]]
    for label, seconds, macs in rows:
        lines.append(
            [
                label,
                f"{1e3 * seconds:.2f}",
                f"{100 * seconds / times.seconds:.1f} %",
                f"{macs / 1e9:.2f}",
                f"{100 * macs / total_macs:.1f} %",
                f"{macs / seconds / 1e9:.0f}" if macs else "",
            ]
        )
    lines.append(["without instrumentation", f"{1e3 * times.unwatched:.2f}", "", "", "", ""])
    return format_columns(lines, num_text_columns=1, markdown=markdown)


def format_columns(lines: Sequence[Cells], num_text_columns: int, markdown: bool = False) -> str:
    """Lay out cells in columns.

    Args:
        lines: the header and the rows.
        num_text_columns: number of leading columns that are aligned left; the others hold numbers.
        markdown: a Markdown table instead of aligned text.
    """
    header, *rows = lines
    if markdown:
        rule = ["---" if i < num_text_columns else "---:" for i in range(len(header))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(header))]

    def align(cells: Cells) -> str:
        texts = [cell.ljust(width) for cell, width in zip(cells[:num_text_columns], widths, strict=False)]
        numbers = [
            cell.rjust(width) for cell, width in zip(cells[num_text_columns:], widths[num_text_columns:], strict=True)
        ]
        return "  ".join((*texts, *numbers)).rstrip()

    return "\n".join(map(align, lines))


def _format_table(rows: Sequence[Row], phase: str, markdown: bool) -> str:
    forward, first = phase == "forward", rows[0].phases[phase]
    header = ["model", "kernels", "input", "N", "M", "parameters", "GFLOPs"] if forward else ["model", "kernels"]
    header += [f"{phase} ms", "x", "clips/s" if forward else "steps/s", "MFU"]
    if first.peak_bytes is not None:
        header.append("peak GB")
    if first.kept_bytes is not None:
        header.append("kept GB")
    lines = []
    for row in rows:
        model_cells = _model_cells(row)
        lines.append([*(model_cells if forward else model_cells[:2]), *_speed_cells(row.phases[phase])])
    return format_columns([header, *lines], num_text_columns=2, markdown=markdown)


def _model_cells(row: Row) -> Cells:
    frames, height, width = row.input_size
    size = format_size(row.input_size) if frames > 1 else f"{height}x{width}"
    tokens = ["" if count is None else str(count) for count in (row.lookup_tokens, row.compressed_tokens)]
    return [row.model, row.kernels or "", size, *tokens, f"{row.parameters / 1e6:.1f} M", f"{row.gflops:.2f}"]


def _speed_cells(phase: Phase) -> Cells:
    cells = [
        _format_spread(phase.seconds, 1e3, 1),
        _format_spread(phase.ratio, 1, 2),
        f"{phase.per_second:.3g}",
        f"{100 * phase.mfu:.0f} %",
    ]
    return cells + [f"{size / 1e9:.3f}" for size in (phase.peak_bytes, phase.kept_bytes) if size is not None]


def _format_spread(spread: Spread, unit: float, digits: int) -> str:
    median, low, high = (f"{unit * value:.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low}-{high})"
