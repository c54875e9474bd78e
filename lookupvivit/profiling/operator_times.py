"""Time and multiply-adds of a forward pass by operator, from wrappers around modules and kernels."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from lookupvivit import kernels
from lookupvivit.layers import mhbc
from lookupvivit.layers.attention import SelfAttention
from lookupvivit.layers.drop_path import DropPath
from lookupvivit.layers.mhbc import Gather, Infuse
from lookupvivit.layers.mlp import MLP
from lookupvivit.layers.vit_block import ViTBlock
from lookupvivit.models.lookupvit import LookupViT, LookupViTBlock
from lookupvivit.profiling.benchmark_cases import CaseRunner, meta_model
from lookupvivit.profiling.flops import count_cost
from lookupvivit.profiling.timing import synchronize, time_calls

REST = "rest: residual sums, positions, pooling"
GATHER, INFUSION = "gather: softmax(q k^T) v", "infusion: A^T v"
# An exchange that folds its projections has these three rows instead of the two above.
WEIGHTS = "weights: A = softmax(q k^T)"
FOLDED: dict[type[nn.Module], tuple[str, str]] = {  # the folded projection, and its row
    Gather: ("v", "gather: A z W_v, folded"),
    Infuse: ("out", "infusion: A^T v W_o, folded"),
}
LAYOUT = "exchange: layout of heads"
EXCHANGE_FUNCTIONS = (  # functions that have a row, by module and name
    (kernels, "gather", GATHER),
    (kernels, "infuse", INFUSION),
    (kernels, "fold", WEIGHTS),
    (mhbc, "gather_folded", FOLDED[Gather][1]),
    (mhbc, "infuse_folded", FOLDED[Infuse][1]),
)
WARMUP = 2

Label = Callable[[tuple[Any, ...]], str]  # inputs of a module -> the row that it belongs to


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        label: name of the operator.
        seconds: of a forward pass of the whole batch, all blocks together.
        macs: multiply-adds performed; with folded projections fewer than the equations of the paper have.
    """

    label: str
    seconds: float
    macs: int


@dataclass(frozen=True)
class OperatorTimes:
    """A forward pass by operator.

    Attributes:
        operators: rows whose seconds add up to ``seconds``; the last one is what belongs to no other row.
        seconds: of the whole pass while it was instrumented.
        unwatched: of the pass without instrumentation, in the same rounds. On a GPU it is shorter, because operators
            do not wait for one another.
    """

    operators: list[Operator]
    seconds: float
    unwatched: float


def measure_operator_times(
    runner: CaseRunner, device: torch.device, rounds: Iterable[int], after: Callable[[], object] = lambda: None
) -> OperatorTimes:
    """Measure a forward pass by operator.

    Rows are means over the middle half of the rounds, ordered by the time of the whole pass. Unlike medians, means of
    the same rounds add up.

    Args:
        runner: the model and its input.
        device: where it computes.
        rounds, after: as for `time_calls`.
    """
    seconds_by_round: list[dict[str, float]] = []

    def clock() -> float:
        synchronize(device)
        return time.perf_counter()

    def instrumented_pass() -> None:
        seconds_by_round.append(split_by_operator(runner.model, runner.forward, clock))

    runner.model.eval()
    with torch.no_grad():
        _, unwatched = time_calls([instrumented_pass, runner.forward], device, rounds, WARMUP, after)
    chosen = _middle_half(seconds_by_round[WARMUP:])
    labels = list(dict.fromkeys(label for seconds in chosen for label in seconds))
    macs = macs_by_operator(runner, folded=WEIGHTS in labels)
    operators = []
    for label in (*(label for label in labels if label != REST), REST):
        mean = sum(seconds[label] for seconds in chosen) / len(chosen)
        operators.append(Operator(label, mean, macs.get(label, 0)))
    total = sum(operator.seconds for operator in operators)
    return OperatorTimes(operators, total, sorted(unwatched)[len(unwatched) // 2])


def _middle_half(rounds: list[dict[str, float]]) -> list[dict[str, float]]:
    ordered = sorted(rounds, key=lambda seconds: sum(seconds.values()))
    quarter = len(ordered) // 4
    return ordered[quarter : len(ordered) - quarter]


# Multiply-adds


def macs_by_operator(runner: CaseRunner, folded: bool = False) -> dict[str, int]:
    """Multiply-adds of a forward pass of the batch, by the same rows.

    Args:
        runner: the model and its input.
        folded: count an exchange whose projections are folded (see `lookupvivit.layers.mhbc`).
    """
    model = meta_model(runner.case).eval()
    rows = _record_rows(model)
    by_module = count_cost(model, runner.video.shape, **runner.call).by_module
    macs: defaultdict[str, int] = defaultdict(int)

    def visit(module: nn.Module, path: str, row: str) -> None:
        row = rows.get(path, row)
        paths = {child: f"{path}.{name}".lstrip(".") for name, child in module.named_children()}
        own = by_module[path] - sum(by_module[child_path] for child_path in paths.values())
        if folded and type(module) in FOLDED:
            name, label = FOLDED[type(module)]
            macs[label] += _folded_macs(module, runner)
            macs[WEIGHTS] += own // 2 if isinstance(module, Gather) else 0  # q k^T; folding replaces the other products
            del paths[module.get_submodule(name)]
        else:
            macs[{Gather: GATHER, Infuse: INFUSION}.get(type(module), row)] += own
        for child, child_path in paths.items():
            visit(child, child_path, row)

    visit(model, "", REST)
    return dict(macs)


def _record_rows(model: nn.Module) -> dict[str, str]:
    """A dictionary that the model's next forward pass fills with the row of each labelled module, by its path."""
    rows: dict[str, str] = {}
    paths = {module: path for path, module in model.named_modules()}
    for module, label in _labels(model).items():

        def record(module: nn.Module, inputs: tuple[Any, ...], path: str = paths[module], label: Label = label) -> None:
            rows[path] = label(inputs)

        module.register_forward_pre_hook(record)
    return rows


def _folded_macs(module: nn.Module, runner: CaseRunner) -> int:
    """Multiply-adds of a folded projection; tracing for the count never folds. See `lookupvivit.layers.mhbc`."""
    assert isinstance(module, (Gather, Infuse))
    n, m = runner.tokens
    assert n is not None and m is not None  # an exchange has lookup and compressed tokens
    width = module.v.in_features
    return len(runner.video) * (module.num_heads * m * n * width + m * width**2)


# Seconds


def split_by_operator(model: nn.Module, call: Callable[[], object], clock: Callable[[], float]) -> dict[str, float]:
    """The time that passes during ``call()``, by row; each moment belongs to the innermost operator.

    Args:
        model: the model that ``call`` runs.
        call: a forward pass.
        clock: returns the current time.
    """
    stopwatch = _Stopwatch(clock)
    # No hooks: a projection that has any is not folded.
    functions: list[tuple[Any, str, Label]] = [(module, "forward", label) for module, label in _labels(model).items()]
    functions += [(owner, name, _constant(label)) for owner, name, label in EXCHANGE_FUNCTIONS]
    with ExitStack() as patches:
        for owner, name, label in functions:
            patches.enter_context(mock.patch.object(owner, name, stopwatch.timed(label, getattr(owner, name))))
        stopwatch.enter(REST)
        call()
        stopwatch.leave()
    return stopwatch.seconds


class _Stopwatch:
    """Sums time by region; while an inner region runs, the time of the outer one stands still."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._regions: list[str] = []
        self._since = 0.0

    def enter(self, region: str) -> None:
        now = self.clock()
        if self._regions:
            self.seconds[self._regions[-1]] += now - self._since
        self._regions.append(region)
        self._since = now

    def leave(self) -> None:
        now = self.clock()
        self.seconds[self._regions.pop()] += now - self._since
        self._since = now

    def timed(self, label: Label, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, during which the region ``label(arguments)`` runs."""

        def run(*arguments: Any, **options: Any) -> Any:
            self.enter(label(arguments))
            result = function(*arguments, **options)
            self.leave()
            return result

        return run


# Rows


def _labels(model: nn.Module) -> dict[nn.Module, Label]:
    """The modules that have a row. What other modules compute themselves belongs to the module around them.

    Modules of external models are labelled with their class.
    """
    labels: dict[nn.Module, Label] = {}

    def visit(module: nn.Module, path: str, ancestors: tuple[nn.Module, ...]) -> None:
        label = _label(module, path, ancestors, model)
        if label is not None:
            labels[module] = label
        if path in ("embedding", "compress"):
            return
        for name, child in module.named_children():
            visit(child, f"{path}.{name}".lstrip("."), (*ancestors, module))

    visit(model, "", ())
    return labels


def _label(module: nn.Module, path: str, ancestors: tuple[nn.Module, ...], model: nn.Module) -> Label | None:
    if module is model or isinstance(module, (ViTBlock, LookupViTBlock, DropPath, nn.ModuleList)):
        return None
    if path in ("embedding", "compress"):
        return _constant("tokenizer")
    if path.endswith("head") and len(ancestors) == 1:
        return _constant("classifiers")
    if any(isinstance(ancestor, ViTBlock) for ancestor in ancestors):
        block = "compressed ViT block" if isinstance(model, LookupViT) else "ViT block"
        return _label_in_vit_block(module, ancestors[-1], block)
    if not isinstance(model, LookupViT):
        return _constant("norms" if isinstance(module, nn.LayerNorm) else type(module).__name__)
    if isinstance(module, MLP):
        return _constant("lookup MLP")
    if isinstance(module, (Gather, Infuse)):
        return _constant(LAYOUT)
    if isinstance(module, nn.LayerNorm):
        return _by_stream(model, "norms")
    if isinstance(module, nn.Linear) and any(isinstance(ancestor, (Gather, Infuse)) for ancestor in ancestors):
        return _by_stream(model, "exchange: projections")
    return None


def _constant(label: str) -> Label:
    return lambda inputs: label


def _label_in_vit_block(module: nn.Module, parent: nn.Module, block: str) -> Label | None:
    if isinstance(module, SelfAttention):
        return _constant(f"{block}: attention")
    if isinstance(module, MLP):
        return _constant(f"{block}: MLP")
    if isinstance(module, nn.LayerNorm):
        return _constant(f"{block}: norms")
    return _constant(f"{block}: projections") if isinstance(parent, SelfAttention) else None


def _by_stream(model: LookupViT, operator: str) -> Label:
    """A row for each token stream, recognised by its number of tokens: a call may keep fewer lookup tokens."""
    num_compressed = torch.Size(model.compressed_size).numel()
    num_lookup = torch.Size(model.embedding.grid(model.input_size)).numel()

    def label(inputs: tuple[Any, ...]) -> str:
        tokens: Tensor = inputs[0]
        count = tokens.shape[1:-1].numel()
        stream = "compressed" if count == num_compressed != num_lookup else "lookup"
        return f"{operator}, {stream} tokens"

    return label
