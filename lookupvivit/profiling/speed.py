"""How long calls take on this machine: medians over interleaved rounds, after a warm-up."""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch


def seconds_of(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    rounds: Iterable[int] = range(9),
    warmup: int = 2,
) -> list[float]:
    """Median seconds of each call, none of them recording gradients.

    The calls take turns, so that whatever else the machine does in the meantime slows all of them alike; in another
    order every round, because what ran before (its memory, its heat) is felt too.

    Args:
        device: where they compute; a GPU is waited for before and after each call.
        rounds: how often each is timed; an iterable, so that a progress bar may be one.
        warmup: calls before that, not timed.
    """
    times: list[list[float]] = [[] for _ in calls]
    shuffle = random.Random(0)
    with torch.no_grad():
        for call in calls:
            for _ in range(warmup):
                call()
        for _ in rounds:
            for i in shuffle.sample(range(len(calls)), len(calls)):
                _wait_for(device)
                begun = time.perf_counter()
                calls[i]()
                _wait_for(device)
                times[i].append(time.perf_counter() - begun)
    return [statistics.median(spent) for spent in times]


def machine(device: torch.device) -> str:
    """What computes, for the legend of a measurement: the GPU's name, or the processor's and the threads in use."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}, torch {torch.__version__}"


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
