"""Speed and memory of several models side by side, measured in turn so that their ratios hold on a busy machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lookupvivit.models.base import Size
from lookupvivit.profiling.benchmark_cases import Case, Setting, Subject
from lookupvivit.profiling.device_flops import peak
from lookupvivit.profiling.measured_memory import Footprint, footprint
from lookupvivit.profiling.operator_times import Breakdown, breakdown
from lookupvivit.profiling.timing import Spread, machine, ratios, times_of

WARMUP = 2
# Forward passes that the arithmetic of a pass counts for: a backward pass costs two.
PHASES = {"forward": 1, "training": 3}


@dataclass(frozen=True)
class Phase:
    """Forward passes, or training steps, of one model.

    Attributes:
        seconds: of one call with the whole batch.
        ratio: how many times as fast as the first model of the benchmark.
        per_second: clips (or pictures) of a forward pass, steps of training; by the median.
        mfu: model FLOPs utilisation, of ``Benchmark.peak_flops``.
        peak_bytes: see `Footprint`; None if memory was not measured.
        kept_bytes: kept for the backward pass; None without training, and as above.
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
        model, kernels: as in `Case`.
        input_size: (T, H, W) of a clip.
        lookup_tokens, compressed_tokens: N and M; None where there are none.
        gflops: multiply-adds of one clip's forward pass, in G (as Table 4 counts).
        parameters: scalars.
        phases: "forward" and, if asked for, "training".
        operators: the forward pass by operator, if asked for.
    """

    model: str
    kernels: str | None
    input_size: Size
    lookup_tokens: int | None
    compressed_tokens: int | None
    gflops: float
    parameters: int
    phases: dict[str, Phase]
    operators: Breakdown | None


@dataclass(frozen=True)
class Benchmark:
    """All that was measured, and where.

    Attributes:
        machine: processor or GPU, threads and torch's version.
        peak_flops, peak_source: FLOP/s that MFU is measured by, and whether they were measured or are printed.
    """

    machine: str
    setting: Setting
    rounds: int
    peak_flops: float
    peak_source: str
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def calls_of(lines: int, rounds: int, train: bool, memory: bool, operators: bool) -> int:
    """How often `benchmark` calls ``after``."""
    phases = 1 + train
    return lines * (phases * (memory + WARMUP + rounds) + operators * 2 * (WARMUP + rounds))


def benchmark(
    cases: Sequence[Case],
    setting: Setting,
    rounds: int,
    train: bool = False,
    memory: bool = True,
    operators: bool = False,
    after: Callable[[], object] = lambda: None,
) -> Benchmark:
    """Measure forward passes and, with ``train``, training steps of every case.

    Args:
        rounds: how often each is timed.
        memory: measure peaks, and what is kept for the backward pass, in processes of their own.
        operators: measure the forward pass by operator.
        after: called after every single measurement, `calls_of` times in all.

    Raises:
        ValueError: a model that is not known or not installed.
        FootprintError: a process that measured memory failed.
    """
    setting.apply()
    device = setting.torch_device
    phases = tuple(PHASES)[: 1 + train]
    found = {}
    for phase in phases:  # each in a process of its own, while none is here to share the machine with
        for case in cases if memory else ():
            found[case, phase] = footprint(case, setting, phase == "training")
            after()
    subjects = [Subject(case, setting) for case in cases]
    flops, source = peak(device, setting.torch_dtype)
    measured = {phase: _times(subjects, device, rounds, phase == "training", after) for phase in phases}
    rows = []
    for i, subject in enumerate(subjects):
        told = {
            phase: _phase(
                subject, setting, phase, measured[phase][0], measured[phase][i], flops, found.get((subject.case, phase))
            )
            for phase in phases
        }
        by_operator = breakdown(subject, device, range(rounds), after) if operators else None
        rows.append(
            Row(
                subject.case.label,
                subject.case.kernels,
                subject.input_size,
                *subject.tokens,
                subject.macs / 1e9,
                subject.parameters,
                told,
                by_operator,
            )
        )
    return Benchmark(machine(device), setting, rounds, flops, source, rows)


def _times(
    subjects: Sequence[Subject], device: torch.device, rounds: int, train: bool, after: Callable[[], object]
) -> list[list[float]]:
    for subject in subjects:
        subject.model.train(train)
    calls = [subject.train_step if train else subject.forward for subject in subjects]
    with torch.set_grad_enabled(train):
        return times_of(calls, device, range(rounds), WARMUP, after)


def _phase(
    subject: Subject,
    setting: Setting,
    phase: str,
    first: Sequence[float],
    times: list[float],
    flops: float,
    memory: Footprint | None,
) -> Phase:
    seconds = Spread.of(times)
    work = 2 * subject.macs * setting.batch * PHASES[phase]
    return Phase(
        seconds,
        ratios(first, times),
        (setting.batch if phase == "forward" else 1) / seconds.median,
        work / seconds.median / flops,
        memory and memory.peak,
        memory and memory.kept,
        times,
    )
