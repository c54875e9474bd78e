"""Peaks of devices: the data-sheet table, and the measurement with a simulated clock."""

import pytest
import torch

from lookupvivit.profiling import device_flops
from lookupvivit.profiling.device_flops import data_sheet_peak, measure_peak


@pytest.mark.parametrize(
    ("name", "half", "single"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA A10", 125e12, 31.2e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("Tesla V100-SXM2-16GB", 125e12, 15.7e12),
        ("Tesla V100-PCIE-16GB", 112e12, 14e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12),
    ],
)
def test_device_names_of_torch_match_the_table(name, half, single):
    assert data_sheet_peak(name, torch.bfloat16) == half
    assert data_sheet_peak(name, torch.float32) == single


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce GTX 1080",
        "NVIDIA H100 NVL",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA RTX 3090 Ti",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    ],
)
def test_variants_that_are_not_listed_have_no_data_sheet_peak(name):
    assert data_sheet_peak(name, torch.float16) is None


def test_the_measured_peak_is_that_of_the_fastest_product(monkeypatch):
    """A simulated clock: products of 1024 x 1024 matrices take 4, 0.5 and 3 seconds."""
    clock, durations = [0.0], iter((4, 0.5, 3))

    def product(left, right):
        assert left.shape == right.shape == (1024, 1024)
        clock[0] += next(durations)

    monkeypatch.setattr(device_flops.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(device_flops.F, "linear", product)
    assert measure_peak(torch.device("cpu"), torch.float32, seconds=7) == 2 * 1024**3 / 0.5
