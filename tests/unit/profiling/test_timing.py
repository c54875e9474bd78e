"""Times, spreads and speed-ups with a simulated clock."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookupvivit.profiling.timing import Spread, median_times, speedups, time_calls

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """The current time, as a list of one number."""
    now = [0.0]
    monkeypatch.setattr("lookupvivit.profiling.timing.time.perf_counter", lambda: now[0])
    return now


def test_times_are_medians_of_alternating_calls(clock):
    order = []

    def call(name, durations):
        remaining = iter(durations)

        def run():
            order.append(name)
            assert not torch.is_grad_enabled()
            clock[0] += next(remaining)

        return run

    calls = [call("a", (9, 1, 50, 3)), call("b", (9, 2, 4, 4))]
    assert median_times(calls, CPU, range(3), warmup=1) == [3, 4]
    assert order[:2] == ["a", "b"]
    assert all(sorted(pair) == ["a", "b"] for pair in zip(order[::2], order[1::2], strict=True))


def test_speedups_do_not_depend_on_the_load_of_the_machine(clock):
    """A call that takes a third of the time is three times as fast, although whole rounds are up to 40 times slower."""
    callbacks, load = [], [1.0]

    def call(seconds):
        def run():
            clock[0] += load[0] * seconds

        return run

    def rounds():
        for load[0] in (1, 10, 1.5, 40, 2):
            yield

    def slow_callback():
        clock[0] += 100  # time outside the calls does not count
        callbacks.append(torch.is_grad_enabled())

    slow, fast = time_calls([call(3), call(1)], CPU, rounds(), 2, slow_callback)
    assert fast == pytest.approx([1, 10, 1.5, 40, 2])
    assert len(callbacks) == 2 * (2 + 5) and all(callbacks)
    spread = speedups(slow, fast)
    assert (spread.low, spread.median, spread.high) == pytest.approx((3, 3, 3))


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=30))
def test_spread_equals_numpys_quantiles(values):
    spread = Spread.of(values)
    assert (spread.low, spread.median, spread.high) == pytest.approx(tuple(np.quantile(values, (0.25, 0.5, 0.75))))
