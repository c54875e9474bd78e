"""Section: DeepSpeed's ZeRO stages in bf16 against float32, in a process of its own; skipped without DeepSpeed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from functools import partial

from data_pipelines.io.processes import python_command
from lookupvivit.profiling.gpu_report.state import Context, Item, Result

# Not imported: this layer is below that of training.
PROGRAM = "from lookupvivit.cli.engine_losses import main; main()"
STEPS = 20
MAX_DIFFERENCE = 0.05  # of losses, relative to the largest of float32
REFERENCE = "fp32:0"
RUNS = (REFERENCE, "bf16:0", "bf16:1", "bf16:2", "bf16:3")  # ZeRO-3 last: it replaces a function of torch
SETTINGS = ("optim.lr=0.01", "optim.warmup_epochs=0", "optim.batch_size=2", "optim.micro_batch_size=2")
TINY_MODEL = "model.overrides={width: 32, depth: 1, num_heads: 2, compressed_size: [2, 3, 3]}"


def seconds() -> float:
    """The time budget."""
    return 55 if _has_deepspeed() else 1


def _has_deepspeed() -> bool:
    return importlib.util.find_spec("deepspeed") is not None


def items(context: Context) -> Iterator[Item]:
    """All stages in one item, because importing DeepSpeed takes most of the time."""
    yield Item("zero", partial(_compare, context))


def _compare(context: Context) -> Result:
    if not _has_deepspeed():
        return {"skipped": "DeepSpeed is not installed"}
    arguments = ["k400_9x9x8", str(STEPS), *RUNS, *SETTINGS]
    if context.dry_run:
        arguments = ["camera_motion", "2", REFERENCE, "bf16:1", *SETTINGS, TINY_MODEL]
    done = subprocess.run(python_command(PROGRAM, *arguments), capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"run"')]
    if not rows:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(last)
    return compare_losses({row.pop("run"): row for row in rows})


def compare_losses(rows: dict[str, Result]) -> Result:
    """Add to each run its largest difference from float32, relative to the largest loss, and whether it passes."""
    expected = rows[REFERENCE].get("losses", [])
    for row in rows.values():
        if expected and len(row.get("losses", [])) == len(expected):
            worst = max(abs(a - b) for a, b in zip(row["losses"], expected, strict=True)) / max(expected)
            row |= {"difference": worst, "passed": worst <= MAX_DIFFERENCE}
    return {"runs": rows}
