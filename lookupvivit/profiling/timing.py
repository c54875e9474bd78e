"""Times of calls on this machine: medians, spreads and speed-ups over interleaved rounds, after a warm-up."""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a measurement; half of its rounds lie between ``low`` and ``high``."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high)


def speedups(reference: Sequence[float], times: Sequence[float]) -> Spread:
    """How many times as fast as the reference a call is, from the times of both in the same rounds.

    Other load on the machine slows both calls of a round, and cancels in the ratio.
    """
    return Spread.of([first / own for first, own in zip(reference, times, strict=True)])


def median_times(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    rounds: Iterable[int] = range(9),
    warmup: int = 2,
) -> list[float]:
    """Median seconds of each call, without gradients. The arguments are those of `time_calls`."""
    with torch.no_grad():
        return [statistics.median(times) for times in time_calls(calls, device, rounds, warmup)]


def time_calls(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    rounds: Iterable[int],
    warmup: int = 2,
    after: Callable[[], object] = lambda: None,
    clock: Callable[[], float] | None = None,
) -> list[list[float]]:
    """Seconds of each call in each round.

    The calls alternate, so that other load on the machine slows all of them alike. Their order changes every round,
    because the call before (its memory, its heat) has an effect too.

    Args:
        calls: functions to time.
        device: where they compute; an accelerator is synchronised before and after each call.
        rounds: each call is timed once per item; an iterable, so that it can be a progress bar.
        warmup: number of untimed calls before the rounds.
        after: called after every call, outside its time, for a progress bar of single calls.
        clock: returns seconds; default: wall-clock time. `time.process_time` excludes the time of other processes.
    """
    clock = clock or time.perf_counter
    times: list[list[float]] = [[] for _ in calls]
    shuffle = random.Random(0)
    for call in calls:
        for _ in range(warmup):
            call()
            after()
    for _ in rounds:
        for i in shuffle.sample(range(len(calls)), len(calls)):
            synchronize(device)
            start = clock()
            calls[i]()
            synchronize(device)
            times[i].append(clock() - start)
            after()
    return times


def describe_machine(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads, and torch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}, torch {torch.__version__}"


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished all work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
