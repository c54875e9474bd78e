"""The table of start times."""

from lookupvivit.cli.benchmark_start import table
from lookupvivit.profiling.process_usage import Usage


def test_medians_and_quartiles_of_each_command():
    usages = {"a": [Usage(float(k), 2.0 * k, 10**6) for k in range(1, 6)], "b": [Usage(0.5, 0.25, 10**6)]}
    text = table(usages)
    assert "| a | 3.00 (2.00-4.00) | 6.00 (4.00-8.00) |" in text
    assert "| b | 0.50 (0.50-0.50) | 0.25 (0.25-0.25) |" in text
