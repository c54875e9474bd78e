"""Section: LookupViT against ViT with the best attention backend: eager, compiled and as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.profiling.benchmark_cases import Case, CaseRunner, Setting, meta_model
from lookupvivit.profiling.gpu_report.measurement import capture, time_call
from lookupvivit.profiling.gpu_report.state import Context, Item, Result
from lookupvivit.profiling.timing import Spread, speedups, time_calls

VIDEO = ("vivit_b16x2", "lookupvivit_b16x2_9x9x8")
OTHER_VIDEO = ("vivit_b16x2", "lookupvivit_b16x2_8x8x16", "lookupvivit_b16x2_9x9x16")
IMAGE = ("vit_b16", "lookupvit_b16_5x5", "timm:vit_base_patch16_224")
TINY = ("vivit_pico8x2", "lookupvivit_pico8x2_4x4x4")
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
BACKWARD_COST = 3  # forward and backward passes in forward passes
ROUNDS = 7


@dataclass(frozen=True)
class Plan:
    """What one item measures.

    Attributes:
        names: models; speeds are relative to the first.
        mode: "eager", "compiled" (block by block, as in training) or "graph" (compiled, and replayed as a CUDA graph).
        batch: clips or images.
        train: training steps instead of forward passes.
    """

    names: Sequence[str]
    mode: str
    batch: int
    train: bool

    @property
    def key(self) -> str:
        """The name of the item."""
        phase = "training" if self.train else "forward"
        return f"{phase} {self.mode} x{self.batch} {' '.join(self.names)}"


def plans(dry_run: bool) -> list[Plan]:
    """The most important first: each new size takes a compilation of every model."""
    both = (False, True)
    if dry_run:
        return [Plan(TINY, mode, 2, train) for mode in ("eager", "compiled") for train in both]
    found = [Plan(VIDEO, "compiled", 8, train) for train in both]
    found += [Plan(VIDEO, "graph", 8, train) for train in both]
    found += [Plan(VIDEO, "eager", 8, train) for train in both]
    found += [Plan(IMAGE, "compiled", 64, train) for train in both]
    found += [Plan(VIDEO, mode, 1, False) for mode in ("graph", "compiled", "eager")]
    found += [Plan(IMAGE, "graph", 64, False), Plan(IMAGE, "eager", 64, False)]
    found += [Plan(OTHER_VIDEO, "compiled", 8, train) for train in both]
    found += [Plan(VIDEO, "eager", batch, train) for batch in (4, 16, 32, 64, 1) for train in both]
    found += [Plan(VIDEO, "compiled", batch, train) for batch in (32, 16, 4, 64, 1) for train in both]
    found += [Plan(IMAGE, "graph", batch, False) for batch in (1, 8)]
    return list(dict.fromkeys(found))


def items(context: Context) -> Iterator[Item]:
    """All plans, in their order."""
    for plan in plans(context.dry_run):
        yield Item(plan.key, partial(_measure, context, plan))


def _measure(context: Context, plan: Plan) -> Result:
    calls, backends, peaks = [], [], []
    for name in plan.names:
        runner = _runner(name, plan.mode != "eager", str(context.device), context.dry_run)
        _set_batch(runner, plan.batch)
        runner.model.train(plan.train)
        backend = _best_backend(runner, plan, context.device)
        call = _call(runner, plan, backend)
        backends.append(backend)
        for _ in range(3):  # compiles, and creates the momentum
            call()
        peaks.append(_peak_bytes(runner, call, context.device))
        if plan.mode == "graph":
            call = capture(call).replay
        calls.append(call)
    rounds = range(2 if context.dry_run else ROUNDS)
    times = time_calls(calls, context.device, rounds, warmup=1)
    rows = {}
    for i, name in enumerate(plan.names):
        macs = forward_flops(name) * (BACKWARD_COST if plan.train else 1) * plan.batch
        seconds = Spread.of(times[i])
        rows[name] = {
            "seconds": vars(seconds),
            "ratio": vars(speedups(times[0], times[i])),
            "flops_per_second": macs / seconds.median,
            "peak_bytes": peaks[i],
            "backend": backends[i],
        }
    return {"mode": plan.mode, "batch": plan.batch, "train": plan.train, "models": rows}


@cache
def _runner(name: str, compiled: bool, device: str, dry_run: bool) -> CaseRunner:
    """A model on the device; kept, because building one takes seconds."""
    runner = CaseRunner(Case(name), Setting(batch=1, dtype="fp32" if dry_run else "bf16", device=device))
    if compiled:
        torch._dynamo.config.recompile_limit = 256  # all blocks and sizes share one limit
        for block in _blocks(runner.model):
            block.compile(dynamic=False, backend="aot_eager" if dry_run else "inductor")
    return runner


def _blocks(model: Any) -> Any:
    """Of a model of the registry or of timm."""
    return model.blocks if hasattr(model, "blocks") else model.model.blocks


def _set_batch(runner: CaseRunner, batch: int) -> None:
    runner.video = runner.video[:1].expand(batch, -1, -1, -1, -1).contiguous()
    runner.targets = torch.zeros(batch, dtype=torch.int64, device=runner.video.device)
    for group in runner.optimizer.param_groups:
        group["foreach"] = True


def _call(runner: CaseRunner, plan: Plan, backend: str | None) -> Callable[[], object]:
    def call() -> object:
        choice: AbstractContextManager[None] = sdpa_kernel(BACKENDS[backend]) if backend else nullcontext()
        with choice, torch.set_grad_enabled(plan.train):
            if plan.train:
                runner.train_step()
                return None
            return runner.forward()

    return call


def _best_backend(runner: CaseRunner, plan: Plan, device: torch.device) -> str | None:
    """The fastest attention backend for the model's self-attention; None on a CPU, which has one."""
    lookup_tokens, compressed_tokens = runner.tokens
    tokens = compressed_tokens or lookup_tokens
    if device.type != "cuda" or tokens is None:
        return None
    return _fastest_backend(tokens, plan.batch, plan.train, device)


@cache
def _fastest_backend(tokens: int, batch: int, train: bool, device: torch.device) -> str:
    shape = (batch, 12, tokens, 64)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=train) for _ in range(3))

    def call() -> None:
        out = F.scaled_dot_product_attention(q, k, v)
        if train:
            torch.autograd.grad(out, (q, k, v), out)

    seconds = {}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                seconds[name] = time_call(call, device, rounds=3)
        except RuntimeError:  # not available for this device or these sizes
            continue
    return min(seconds, key=lambda name: seconds[name])


def _peak_bytes(runner: CaseRunner, call: Callable[[], object], device: torch.device) -> int | None:
    """Memory of one call, with the model's weights, momentum and input; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    moments = [x for state in runner.optimizer.state.values() for x in state.values() if isinstance(x, torch.Tensor)]
    resident = [*runner.model.parameters(), *runner.model.buffers(), *moments, runner.video]
    return torch.cuda.max_memory_allocated() - before + sum(x.nbytes for x in resident)


@cache
def forward_flops(name: str) -> int:
    """FLOPs of one clip's forward pass, two per multiply-add, by torch's counter: matrix products and attention."""
    model = meta_model(Case(name))
    video = torch.empty(1, 3, *model.input_size, device="meta")
    with kernels.use("reference"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(video)
    return counter.get_total_flops()
