"""Section: the memory that a dry run estimates for the activations of a step, against the measured peak.

Measured is a forward and a backward pass in plain PyTorch. What DeepSpeed adds is compared in `engine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.profiling.activation_trace import trace_activations
from lookupvivit.profiling.benchmark_cases import Case, CaseRunner, Setting, meta_model
from lookupvivit.profiling.dtypes import DTYPES
from lookupvivit.profiling.gpu_report.state import Context, Item, Result


def items(context: Context) -> Iterator[Item]:
    """Model, precision, batch, and whether blocks are recomputed."""
    cases = [
        ("lookupvivit_b16x2_9x9x8", "bf16", 4, False),
        ("vivit_b16x2", "bf16", 4, False),
        ("lookupvivit_b16x2_9x9x8", "bf16", 8, True),
        ("lookupvit_b16_5x5", "bf16", 64, False),
        ("lookupvivit_b16x2_9x9x8", "fp32", 2, False),
    ]
    if context.dry_run:
        cases = [("lookupvivit_pico8x2_4x4x4", "fp32", 2, False)]
    for name, dtype, batch, checkpointing in cases:
        key = f"{name} {dtype} x{batch}{' checkpointing' if checkpointing else ''}"
        yield Item(key, partial(_compare, context, name, dtype, batch, checkpointing))


def _compare(context: Context, name: str, dtype: str, batch: int, checkpointing: bool) -> Result:
    case = Case(name)
    model = meta_model(case)
    shape = (batch, 3, *model.input_size)
    estimated = trace_activations(model, shape, DTYPES[dtype], checkpointing=checkpointing, device=context.device.type)
    measured = _measure(context, case, dtype, batch, checkpointing)
    return {"estimated_saved": estimated.saved, "estimated_peak": estimated.peak, **measured}


def _measure(context: Context, case: Case, dtype: str, batch: int, checkpointing: bool) -> Result:
    """Allocated memory above that before the step: after the forward pass, and at its peak."""
    runner = CaseRunner(case, Setting(batch=batch, dtype=dtype, device=str(context.device)))
    runner.model.train()
    set_activation_checkpointing(runner.model, checkpointing)
    if context.device.type != "cuda":
        runner.loss().backward()
        return {"saved": None, "peak": None}
    runner.loss().backward()  # compiles kernels and creates the workspaces of libraries
    runner.optimizer.zero_grad()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = runner.loss()
    saved = torch.cuda.memory_allocated() - before
    loss.backward()
    torch.cuda.synchronize()
    return {"saved": saved, "peak": torch.cuda.max_memory_allocated() - before}
