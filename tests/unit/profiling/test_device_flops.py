import time

import pytest
import torch

from lookupvivit.profiling.device_flops import known_peak, measured_peak


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
def test_torchs_names_are_found(name, half, single):
    assert known_peak(name, torch.bfloat16) == half and known_peak(name, torch.float32) == single


@pytest.mark.parametrize(
    "name", ["NVIDIA GeForce GTX 1080", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA RTX 3090 Ti"]
)
def test_an_unknown_device_is_not_guessed(name):
    assert known_peak(name, torch.float16) is None


def test_a_measured_peak_is_no_less_than_the_mean_speed():
    peak = measured_peak(torch.device("cpu"), torch.float32, seconds=0.1)
    matrix = torch.ones(256, 256)
    before = time.perf_counter()
    for _ in range(50):
        matrix @ matrix
    assert peak > 0.3 * 50 * 2 * 256**3 / (time.perf_counter() - before)  # other processes come and go
