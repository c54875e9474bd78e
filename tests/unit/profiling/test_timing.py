"""Times, spreads and ratios, with a clock of the test's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lookupvivit.profiling.timing import Spread, ratios, seconds_of, times_of


def test_times_are_medians_of_calls_that_take_turns(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr("lookupvivit.profiling.timing.time.perf_counter", lambda: clock[0])

    def call(name, durations):
        left = iter(durations)

        def run():
            order.append(name)
            assert not torch.is_grad_enabled()
            clock[0] += next(left)

        return run

    found = seconds_of([call("a", (9, 1, 50, 3)), call("b", (9, 2, 4, 4))], torch.device("cpu"), range(3), warmup=1)
    assert found == [3, 4] and order[:2] == ["a", "b"]
    assert all(sorted(pair) == ["a", "b"] for pair in zip(order[::2], order[1::2], strict=True))


def test_ratios_hold_while_the_machine_is_slowed_down(monkeypatch):
    """A call that takes a third of the time is three times as fast, also where whole rounds take ten times more."""
    clock, ticks = [0.0], []
    monkeypatch.setattr("lookupvivit.profiling.timing.time.perf_counter", lambda: clock[0])
    load = [1.0]

    def call(seconds):
        def run():
            clock[0] += load[0] * seconds

        return run

    def rounds():
        for load[0] in (1, 10, 1.5, 40, 2):
            yield

    def tick():
        clock[0] += 100  # a slow progress bar is nobody's time
        ticks.append(torch.is_grad_enabled())

    slow, fast = times_of([call(3), call(1)], torch.device("cpu"), rounds(), 2, tick)
    assert fast == pytest.approx([1, 10, 1.5, 40, 2]) and len(ticks) == 2 * (2 + 5) and all(ticks)
    found = ratios(slow, fast)
    assert (found.low, found.median, found.high) == pytest.approx((3, 3, 3))


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=30))
def test_the_spread_is_that_of_numpy(values):
    found = Spread.of(values)
    expected = np.quantile(values, (0.25, 0.5, 0.75))
    assert (found.low, found.median, found.high) == pytest.approx(tuple(expected))
