"""Budgets against brute force: torch's own FLOP counter, and a clock that the test winds itself."""

import subprocess
import sys
from math import prod

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.profiling import budget

SIZES = [(t, k, k) for t in (1, 2, 4) for k in (1, 2, 3, 4)]
SMALL = {"input_size": (8, 32, 32), "tubelet": (2, 8, 8), "width": 32, "depth": 2, "num_heads": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LookupViT(3, compressed_size=(4, 2, 2), **SMALL)


def by_torch(model, size):
    # the fused attention of a CPU is not among the operators that torch counts
    counting = FlopCounterMode(display=False)
    with counting as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), kernels.use("reference"):
        model(torch.zeros(1, 3, 8, 32, 32), compressed_size=size)
    return counter.get_total_flops() / 2e9  # torch counts a multiply-add as two


def test_gflops_grow_with_the_tokens_and_every_budget_picks_as_brute_force_does(model):
    costs = {size: by_torch(model, size) for size in SIZES}
    ours = {size: budget.gflops_of(model, size, model.input_size) for size in SIZES}
    assert all(ours[one] < ours[other] for one in SIZES for other in SIZES if prod(one) < prod(other))
    for limit in [*costs.values(), 0.5 * sum(costs.values())]:
        limit *= 1.01  # the two counters differ by the resampling
        found = model.for_budget(gflops=limit, sizes=SIZES)
        affordable = [size for size in SIZES if costs[size] <= limit]
        assert found.compressed_size == max(affordable, key=lambda size: (prod(size), size))
        assert found.gflops <= limit and found.gflops == pytest.approx(costs[found.compressed_size], rel=0.01)


def test_the_chosen_size_is_called_like_the_model(model):
    clip = torch.rand(2, 3, 8, 32, 32)
    found = model.eval().for_budget(gflops=1, sizes=SIZES)
    assert found.compressed_size == (4, 4, 4) and found.ms is None
    torch.testing.assert_close(found(clip).logits, model(clip, compressed_size=(4, 4, 4)).logits, rtol=0, atol=0)
    assert found(clip, return_intermediates=True).intermediates[0]["attention"].shape[2:5] == (4, 4, 4)


def test_milliseconds_are_measured_once_per_size_and_setting(model, monkeypatch):
    asked = []

    def clock(calls, device):
        asked.append([call().logits.shape for call in calls])
        return [0.001 * (number + 1) for number in range(len(calls))]

    monkeypatch.setattr(budget, "seconds_of", clock)
    ladder = sorted(SIZES, key=lambda size: (prod(size), size))
    model.train()
    for limit in (1, 2.5, 7, 100):
        found = model.for_budget(ms=limit, sizes=SIZES)
        assert found.compressed_size == ladder[min(int(limit), len(ladder)) - 1] and found.ms <= limit
    assert asked == [[(1, 3)] * len(SIZES)] and model.training and model.blocks[0].training
    model.for_budget(ms=100, sizes=SIZES[:2], batch=4)
    assert asked[1:] == [[(4, 3)] * 2]


def test_what_no_size_can_do_is_told(model):
    with pytest.raises(ValueError, match=r"within 1e-05 gflops: the smallest, 1x1x1, takes 0\.00"):
        model.for_budget(gflops=1e-5, sizes=SIZES)
    for budgets in ({}, {"gflops": 1, "ms": 1}):
        with pytest.raises(ValueError, match="either gflops or ms"):
            model.for_budget(**budgets)
    with pytest.raises(ValueError, match="gflops must be above 0, found -1"):
        model.for_budget(gflops=-1)
    with pytest.raises(ValueError, match=r"three positive integers \(t, h, w\)"):
        model.for_budget(gflops=1, sizes=[(2, 2)])
    with pytest.raises(ValueError, match="sizes must hold at least one"):
        model.for_budget(ms=1, sizes=[])


def test_usual_sizes_are_divisions_of_the_grid():
    image = LookupViT(3, (1, 224, 224), (1, 16, 16), (1, 6, 6), 32, 1, 2)
    assert [k for _, k, _ in budget.usual_sizes(image)] == [4, 5, 6, 7, 9, 10]
    fixed = LookupViT(3, compressed_size=(4, 2, 2), compressed_init="random", **SMALL)
    assert budget.usual_sizes(fixed) == [(4, 2, 2)] == [fixed.for_budget(gflops=1).compressed_size]


def test_a_model_looks_for_its_costs_only_when_asked():
    code = "import sys, lookupvivit; print([m for m in sys.modules if m.startswith('lookupvivit.profiling')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
