"""Where the time of a forward pass goes, by operator: a stopwatch that modules and kernels hand to one another."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.layers.attention import SelfAttention
from lookupvivit.layers.drop_path import DropPath
from lookupvivit.layers.mhbc import Gather, GatherValues, Infuse, InfuseOutput
from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.lookupvit import LookupViT, LookupViTBlock
from lookupvivit.profiling.benchmark_cases import Subject, without_data
from lookupvivit.profiling.timing import times_of, wait_for

REST = "rest: residual sums, positions, pooling"
GATHER, INFUSION = "gather: softmax(q k^T) v", "infusion: A^T v"
WEIGHTS = "weights: A = softmax(q k^T)"  # of an exchange that folds its projections, as these two
FOLDED = {GatherValues: "gather: A z W_v, folded", InfuseOutput: "infusion: A^T v W_o, folded"}
LAYOUT = "exchange: layout of heads"
Label = Callable[[tuple[Any, ...]], str]  # of a module by its inputs


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        seconds: of a forward pass of the whole batch, all blocks together.
        macs: multiply-adds of the same, fewer than the model's GFLOPs say where projections are folded.
    """

    label: str
    seconds: float
    macs: int


@dataclass(frozen=True)
class Breakdown:
    """A forward pass by operator.

    Attributes:
        operators: the rows, whose seconds add up to ``seconds``; what has no row of its own is in the last.
        seconds: of the whole pass while it was watched.
        unwatched: of the pass alone, in the same rounds; on a GPU shorter, as operators need not wait for one another.
    """

    operators: list[Operator]
    seconds: float
    unwatched: float


def breakdown(
    subject: Subject, device: torch.device, rounds: Iterable[int], after: Callable[[], object] = lambda: None
) -> Breakdown:
    """Measure a forward pass by operator.

    Rows are means over the middle half of the rounds, by the time of the whole pass: unlike medians, means of the same
    rounds add up.

    Args:
        rounds, after: as for `times_of`.
    """
    watched: list[dict[str, float]] = []

    def clock() -> float:
        wait_for(device)
        return time.perf_counter()

    def watch() -> None:
        watched.append(by_region(subject.model, subject.forward, clock))

    warmup = 2
    subject.model.eval()
    with torch.no_grad():
        _, alone = times_of([watch, subject.forward], device, rounds, warmup, after)
    chosen = sorted(watched[warmup:], key=lambda times: sum(times.values()))
    chosen = chosen[len(chosen) // 4 : len(chosen) - len(chosen) // 4]
    labels = list(dict.fromkeys(label for times in chosen for label in times))
    macs = macs_by_region(subject, folded=WEIGHTS in labels)
    rows = [
        Operator(label, sum(times[label] for times in chosen) / len(chosen), int(macs.get(label, 0)))
        for label in (*(label for label in labels if label != REST), REST)
    ]
    return Breakdown(rows, sum(row.seconds for row in rows), sorted(alone)[len(alone) // 2])


def macs_by_region(subject: Subject, folded: bool = False) -> dict[str, float]:
    """Multiply-adds of a forward pass of the batch, by the same rows; ``folded``: of an exchange that folds."""
    model, video = without_data(subject.case).eval(), torch.empty(subject.video.shape, device="meta")
    with FlopCounterMode(display=False) as counter, kernels.use("folded" if folded else "reference"):
        flops = by_region(model, lambda: model(video), counter.get_total_flops)
    return {label: count / 2 for label, count in flops.items()}


def by_region(model: nn.Module, call: Callable[[], object], clock: Callable[[], float]) -> dict[str, float]:
    """What ``clock`` advances during ``call()``, by row; each moment counts once, for the innermost region.

    Args:
        model: called by ``call``.
        clock: anything that grows: seconds, or FLOPs.
    """
    watch = _Stopwatch(clock)
    hooks = []
    for module, label in _labels(model).items():
        hooks.append(module.register_forward_pre_hook(lambda _, inputs, label=label: watch.enter(label(inputs))))
        hooks.append(module.register_forward_hook(lambda *_: watch.leave()))
    try:
        with _watched_kernels(watch):
            watch.enter(REST)
            call()
            watch.leave()
    finally:
        for hook in hooks:
            hook.remove()
    return watch.spent


class _Stopwatch:
    """Adds time up by region; while an inner region runs, the outer one's time stands still."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.spent = clock, defaultdict(float)
        self.regions: list[str] = []
        self.since = 0.0

    def enter(self, region: str) -> None:
        now = self.clock()
        if self.regions:
            self.spent[self.regions[-1]] += now - self.since
        self.regions.append(region)
        self.since = now

    def leave(self) -> None:
        now = self.clock()
        self.spent[self.regions.pop()] += now - self.since
        self.since = now


@contextmanager
def _watched_kernels(watch: _Stopwatch) -> Iterator[None]:
    """The exchange's halves are functions, which have no hooks."""

    def around(region: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            watch.enter(region)
            result = function(*arguments, **options)
            watch.leave()
            return result

        return watched

    plain = kernels.gather, kernels.infuse, kernels.fold
    kernels.gather, kernels.infuse, kernels.fold = map(around, (GATHER, INFUSION, WEIGHTS), plain)
    try:
        yield
    finally:
        kernels.gather, kernels.infuse, kernels.fold = plain


def _labels(model: nn.Module) -> dict[nn.Module, Label]:
    """The modules that have a row; what the others do themselves counts for the module around them.

    Modules of other libraries are told apart by their class.
    """
    labels: dict[nn.Module, Label] = {}

    def visit(module: nn.Module, path: str, within: tuple[nn.Module, ...]) -> None:
        name = _label(module, path, within, model)
        if name is not None:
            labels[module] = name if callable(name) else lambda _, name=name: name
        if path in ("embedding", "compress"):
            return
        for child, inner in module.named_children():
            visit(inner, f"{path}.{child}".lstrip("."), (*within, module))

    visit(model, "", ())
    return labels


def _label(module: nn.Module, path: str, within: tuple[nn.Module, ...], model: nn.Module) -> Label | str | None:
    if module is model or isinstance(module, (ViTBlock, LookupViTBlock, DropPath, nn.ModuleList)):
        return None
    if path in ("embedding", "compress"):
        return "tokenizer"
    if path.endswith("head") and len(within) == 1:
        return "heads"
    if any(isinstance(outer, ViTBlock) for outer in within):
        return _of_vit_block(module, within, "compressed ViT block" if isinstance(model, LookupViT) else "ViT block")
    if not isinstance(model, LookupViT):
        return "norms" if isinstance(module, nn.LayerNorm) else type(module).__name__
    if isinstance(module, MLP):
        return "lookup MLP"
    if isinstance(module, (Gather, Infuse)):
        return LAYOUT
    if isinstance(module, nn.LayerNorm):
        return _by_stream(model, "norms")
    if isinstance(module, nn.Linear) and any(isinstance(outer, (Gather, Infuse)) for outer in within):
        apart = _by_stream(model, "exchange: projections")
        return lambda inputs: FOLDED[type(module)] if len(inputs) == 2 else apart(inputs)  # tokens, and A to fold with
    return None


def _of_vit_block(module: nn.Module, within: tuple[nn.Module, ...], block: str) -> str | None:
    if isinstance(module, SelfAttention):
        return f"{block}: attention"
    if isinstance(module, MLP):
        return f"{block}: MLP"
    if isinstance(module, nn.LayerNorm):
        return f"{block}: norms"
    return f"{block}: projections" if isinstance(within[-1], SelfAttention) else None


def _by_stream(model: LookupViT, what: str) -> Label:
    """Which of the two token sets a module is given, by their number."""
    lookup = torch.Size(model.embedding.grid(model.input_size)).numel()

    def label(inputs: tuple[Any, ...]) -> str:
        tokens: Tensor = inputs[0]
        return f"{what}, {'lookup' if tokens.shape[1:-1].numel() == lookup else 'compressed'} tokens"

    return label
