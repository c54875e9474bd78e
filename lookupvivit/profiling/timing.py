"""How long calls take on this machine: medians, spreads and ratios over interleaved rounds, after a warm-up."""

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
    """The median of a measurement, and the quartiles between which half of its rounds lie."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high)


def ratios(reference: Sequence[float], times: Sequence[float]) -> Spread:
    """How many times as fast as the reference a call is, from the times of both in the same rounds.

    Each round gives a ratio of its own: what slows the machine for a while slows both, and is gone from it.
    """
    return Spread.of([first / own for first, own in zip(reference, times, strict=True)])


def seconds_of(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    rounds: Iterable[int] = range(9),
    warmup: int = 2,
) -> list[float]:
    """Median seconds of each call, none of them recording gradients; arguments as for `times_of`."""
    with torch.no_grad():
        return [statistics.median(spent) for spent in times_of(calls, device, rounds, warmup)]


def times_of(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    rounds: Iterable[int],
    warmup: int = 2,
    after: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Seconds of each call in each round.

    The calls take turns, so that whatever else the machine does in the meantime slows all of them alike; in another
    order every round, because what ran before (its memory, its heat) is felt too.

    Args:
        device: where they compute; an accelerator is waited for before and after each call.
        rounds: how often each is timed; an iterable, so that a progress bar may be one.
        warmup: calls before that, not timed.
        after: called after every call, outside its time: for a progress bar of single calls.
    """
    times: list[list[float]] = [[] for _ in calls]
    shuffle = random.Random(0)
    for call in calls:
        for _ in range(warmup):
            call()
            after()
    for _ in rounds:
        for i in shuffle.sample(range(len(calls)), len(calls)):
            wait_for(device)
            begun = time.perf_counter()
            calls[i]()
            wait_for(device)
            times[i].append(time.perf_counter() - begun)
            after()
    return times


def machine(device: torch.device) -> str:
    """What computes, for the legend of a measurement: the GPU's name, or the processor's and the threads in use."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}, torch {torch.__version__}"


def wait_for(device: torch.device) -> None:
    """Until an accelerator has finished all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
