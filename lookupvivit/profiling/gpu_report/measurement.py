"""Times of calls on a device, and the peaks that they are compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from lookupvivit.profiling.device_flops import measure_peak
from lookupvivit.profiling.timing import synchronize

Call = Callable[[], object]
SECONDS_PER_CASE = 0.03  # of timed calls
SPECIAL_FUNCTIONS_PER_CLOCK = 16  # exponentials of a multiprocessor of compute capability 8.0 to 10.0, CUDA C++ guide


def time_call(call: Call, device: torch.device, rounds: int = 7) -> float:
    """Median seconds of a call that has run before, without the time of its launch from Python.

    On a GPU, several calls are captured into one graph, so that short kernels follow each other without gaps.
    """
    call()
    if device.type != "cuda":
        return statistics.median(_host_seconds(call, device) for _ in range(rounds))
    once = _host_seconds(call, device)
    repeats = max(1, min(50, int(SECONDS_PER_CASE / rounds / max(once, 1e-6))))

    def repeat() -> None:  # keeps no results
        for _ in range(repeats):
            call()

    graph = capture(repeat)
    graph.replay()
    return statistics.median(_device_seconds(graph.replay) for _ in range(rounds)) / repeats


def capture(call: Call) -> torch.cuda.CUDAGraph:
    """The GPU work of a call as a graph; the call has to have run before."""
    torch.cuda.synchronize()
    side = torch.cuda.Stream()  # captured on a stream of its own, as torch requires
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def _host_seconds(call: Call, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def _device_seconds(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def measure_peaks(device: torch.device, dtype: torch.dtype) -> dict[str, float | None]:
    """What a device can reach.

    Returns:
        ``flops`` per second of a large matrix product; ``bytes`` per second of a copy, read and written;
        ``exponentials`` per second by the data sheet, None if unknown.
    """
    size = 2**30 if device.type == "cuda" else 2**20
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return {
        "flops": measure_peak(device, dtype, seconds=1.0 if device.type == "cuda" else 0.01),
        "bytes": 2 * size / time_call(lambda: target.copy_(source), device),
        "exponentials": _exponentials(device),
    }


def _exponentials(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    properties: Any = torch.cuda.get_device_properties(device)
    kilohertz = getattr(properties, "clock_rate", None)
    return kilohertz and 1e3 * kilohertz * SPECIAL_FUNCTIONS_PER_CLOCK * properties.multi_processor_count
