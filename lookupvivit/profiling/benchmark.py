"""Speed and memory of several models, measured in alternation so that their ratios hold on a busy machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lookupvivit.profiling.benchmark_cases import Case, CaseRunner, Setting
from lookupvivit.profiling.device_flops import peak_flops
from lookupvivit.profiling.memory_measurement import MeasuredMemory, measure_memory
from lookupvivit.profiling.operator_times import OperatorTimes, measure_operator_times
from lookupvivit.profiling.timing import Spread, describe_machine, speedups, time_calls
from lookupvivit.sizes import Size

WARMUP = 2
# The cost of each phase in forward passes: a backward pass costs two.
PHASES = {"forward": 1, "training": 3}

Callback = Callable[[], object]


@dataclass(frozen=True)
class Phase:
    """Forward passes or training steps of one model.

    Attributes:
        seconds: of one call with the whole batch.
        ratio: speed relative to the benchmark's first model; 2 means twice as fast.
        per_second: clips (or images) in forward passes, steps in training; from the median.
        mfu: model FLOPs utilization relative to ``Benchmark.peak_flops``.
        peak_bytes: see `MeasuredMemory`; None if memory was not measured.
        kept_bytes: saved for the backward pass; None without training or if memory was not measured.
        times: seconds of every round.
    """

    seconds: Spread
    ratio: Spread
    per_second: float
    mfu: float
    peak_bytes: int | None
    kept_bytes: int | None
    times: list[float]


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        model: label of its `Case`.
        kernels: as in `Case`.
        input_size: (T, H, W) of a clip.
        lookup_tokens, compressed_tokens: N and M; None where there are none.
        gflops: multiply-adds of one clip's forward pass in G, as the paper's Table 4 counts.
        parameters: number of scalars.
        phases: "forward" and, on request, "training".
        operators: the forward pass by operator, on request.
    """

    model: str
    kernels: str | None
    input_size: Size
    lookup_tokens: int | None
    compressed_tokens: int | None
    gflops: float
    parameters: int
    phases: dict[str, Phase]
    operators: OperatorTimes | None


@dataclass(frozen=True)
class Benchmark:
    """The results, and where they were measured.

    Attributes:
        machine: processor or GPU, threads and torch's version.
        setting: how the cases ran.
        rounds: number of timed calls of each case.
        peak_flops, peak_source: the device's peak in FLOP/s and its origin, "data sheet" or "measured".
        rows: one per case.
    """

    machine: str
    setting: Setting
    rounds: int
    peak_flops: float
    peak_source: str
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)


def count_calls(num_cases: int, rounds: int, *, train: bool, memory: bool, operators: bool) -> int:
    """The number of times that `run_benchmark` calls ``after``."""
    phases = 1 + train
    return num_cases * (phases * (memory + WARMUP + rounds) + operators * 2 * (WARMUP + rounds))


def run_benchmark(
    cases: Sequence[Case],
    setting: Setting,
    rounds: int,
    *,
    train: bool = False,
    memory: bool = True,
    operators: bool = False,
    after: Callback = lambda: None,
) -> Benchmark:
    """Measure the forward pass and, with ``train``, the training step of every case.

    Args:
        cases: what to measure; speeds are relative to the first.
        setting: how to measure.
        rounds: number of timed calls of each case.
        train: measure training steps as well.
        memory: measure peak memory and the bytes saved for the backward pass, each case in its own process.
        operators: measure the forward pass by operator as well.
        after: called after every single measurement, `count_calls` times in all.

    Raises:
        ValueError: a model that is unknown or not installed, or has an operator of unknown cost.
        MemoryMeasurementError: a process that measured memory failed.
    """
    setting.apply()
    device = setting.torch_device
    phases = ("forward", "training") if train else ("forward",)
    # Memory comes first, while this process holds no model.
    measured_memory = _measure_memory(cases, setting, phases, after) if memory else {}
    runners = [CaseRunner(case, setting) for case in cases]
    for runner in runners:
        _ = runner.macs  # an operator of unknown cost is an error before the measurements
    peak, peak_source = peak_flops(device, setting.torch_dtype)
    times = {phase: _time_phase(runners, device, rounds, phase == "training", after) for phase in phases}
    rows = []
    for i, runner in enumerate(runners):
        results = {
            phase: _phase_result(
                runner,
                phase,
                times=times[phase][i],
                reference=times[phase][0],
                peak=peak,
                memory=measured_memory.get((runner.case, phase)),
            )
            for phase in phases
        }
        operator_times = measure_operator_times(runner, device, range(rounds), after) if operators else None
        rows.append(_row(runner, results, operator_times))
    return Benchmark(describe_machine(device), setting, rounds, peak, peak_source, rows)


def _measure_memory(
    cases: Sequence[Case], setting: Setting, phases: Sequence[str], after: Callback
) -> dict[tuple[Case, str], MeasuredMemory]:
    measured = {}
    for phase in phases:
        for case in cases:
            measured[case, phase] = measure_memory(case, setting, train=phase == "training")
            after()
    return measured


def _time_phase(
    runners: Sequence[CaseRunner], device: torch.device, rounds: int, train: bool, after: Callback
) -> list[list[float]]:
    """Seconds by case and round."""
    for runner in runners:
        runner.model.train(train)
    calls = [runner.train_step if train else runner.forward for runner in runners]
    with torch.set_grad_enabled(train):
        return time_calls(calls, device, range(rounds), WARMUP, after)


def _phase_result(
    runner: CaseRunner,
    phase: str,
    *,
    times: list[float],
    reference: list[float],
    peak: float,
    memory: MeasuredMemory | None,
) -> Phase:
    seconds, batch = Spread.of(times), len(runner.video)
    flops = 2 * runner.macs * batch * PHASES[phase]  # the peak counts a multiply-add as two FLOPs
    return Phase(
        seconds=seconds,
        ratio=speedups(reference, times),
        per_second=(batch if phase == "forward" else 1) / seconds.median,
        mfu=flops / seconds.median / peak,
        peak_bytes=None if memory is None else memory.peak,
        kept_bytes=None if memory is None else memory.kept,
        times=times,
    )


def _row(runner: CaseRunner, phases: dict[str, Phase], operator_times: OperatorTimes | None) -> Row:
    lookup_tokens, compressed_tokens = runner.tokens
    return Row(
        model=runner.case.label,
        kernels=runner.case.kernels,
        input_size=runner.input_size,
        lookup_tokens=lookup_tokens,
        compressed_tokens=compressed_tokens,
        gflops=runner.macs / 1e9,
        parameters=runner.parameters,
        phases=phases,
        operators=operator_times,
    )
