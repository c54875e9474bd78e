"""Shared by the tests of every exchange implementation: random inputs, the float64 solution and the relative errors."""

from lookupvivit.profiling.gpu_report.exchange import (
    RESULTS,
    dispatched_exchange,
    errors,
    random_inputs,
    reference_exchange,
    solve,
)

__all__ = ["RESULTS", "dispatched_exchange", "errors", "random_inputs", "reference_exchange", "solve"]
