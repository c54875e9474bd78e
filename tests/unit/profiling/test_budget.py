"""Budgets against exhaustive search with torch's own FLOP counter, and with a simulated clock."""

from math import prod

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.profiling import budget
from lookupvivit.profiling.budget import for_budget
from lookupvivit.sizes import Keep, TokenSetting, as_keep

SIZES = [(t, k, k) for t in (1, 2, 4) for k in (1, 2, 3, 4)]
SMALL = {"input_size": (8, 32, 32), "tubelet": (2, 8, 8), "width": 32, "depth": 1, "num_heads": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LookupViT(3, compressed_size=(4, 2, 2), **SMALL)


def gflops_by_torch(model, size):
    # torch's counter does not know the fused attention of a CPU.
    counting = FlopCounterMode(display=False)
    with counting as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH), kernels.use("reference"):
        model(torch.zeros(1, 3, 8, 32, 32), compressed_size=size)
    return counter.get_total_flops() / 2e9  # torch counts a multiply-add as two


def test_gflops_budgets_choose_like_an_exhaustive_search(model):
    costs = {size: gflops_by_torch(model, size) for size in SIZES}
    counted = {size: budget.count_gflops(model, TokenSetting(size), model.input_size) for size in SIZES}
    assert all(counted[one] < counted[other] for one in SIZES for other in SIZES if prod(one) < prod(other))
    for limit in [*costs.values(), 0.5 * sum(costs.values())]:
        limit *= 1.01  # the counters differ in the resampling
        chosen = for_budget(model, gflops=limit, sizes=SIZES)
        affordable = [size for size in SIZES if costs[size] <= limit]
        assert chosen.compressed_size == max(affordable, key=lambda size: (prod(size), size))
        assert chosen.gflops <= limit and chosen.gflops == pytest.approx(costs[chosen.compressed_size], rel=0.01)


def test_of_several_shares_the_most_expensive_setting_within_the_budget_is_chosen(model):
    shares = (0.25, "motion:0.5", 1)
    by_cost = []
    for size in SIZES[::3]:
        for share in shares:
            tokens = TokenSetting(size, None if share == 1 else as_keep(share))
            by_cost.append((budget.count_gflops(model, tokens, model.input_size), tokens))
    by_cost.sort()
    for gflops, tokens in by_cost:
        chosen = for_budget(model, gflops=gflops, sizes=SIZES[::3], keep=shares)
        assert TokenSetting(chosen.compressed_size, chosen.keep) == tokens and chosen.gflops == gflops
    clip = torch.rand(2, 3, 8, 32, 32)
    chosen = for_budget(model.eval(), gflops=1, sizes=[(2, 2, 2)], keep=["motion:0.5"])
    assert chosen.keep == Keep(0.5, "motion")
    torch.testing.assert_close(chosen(clip).logits, model(clip, (2, 2, 2), keep="motion:0.5").logits, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"1x1x1@0\.25"):
        for_budget(model, gflops=1e-6, sizes=SIZES[::3], keep=shares)


def test_the_result_is_called_like_the_model(model):
    clip = torch.rand(2, 3, 8, 32, 32)
    chosen = for_budget(model.eval(), gflops=1, sizes=[(1, 1, 1), (4, 4, 4)])
    assert chosen.compressed_size == (4, 4, 4) and chosen.ms is None
    torch.testing.assert_close(chosen(clip).logits, model(clip, compressed_size=(4, 4, 4)).logits, rtol=0, atol=0)
    assert chosen(clip, return_intermediates=True).intermediates[0]["attention"].shape[2:5] == (4, 4, 4)


def test_milliseconds_are_measured_once_per_size_and_setting(model, monkeypatch):
    measured = []

    def median_times(calls, device):
        measured.append([call().logits.shape for call in calls])
        return [0.001 * (number + 1) for number in range(len(calls))]

    monkeypatch.setattr(budget, "median_times", median_times)
    by_tokens = sorted(SIZES, key=lambda size: (prod(size), size))
    model.train()
    for limit in (1, 2.5, 7, 100):
        chosen = for_budget(model, ms=limit, sizes=SIZES)
        assert chosen.compressed_size == by_tokens[min(int(limit), len(by_tokens)) - 1] and chosen.ms <= limit
    assert measured == [[(1, 3)] * len(SIZES)]
    assert model.training and model.blocks[0].training
    for_budget(model, ms=100, sizes=SIZES[:2], batch_size=4)
    assert measured[1:] == [[(4, 3)] * 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gflops": 1e-5, "sizes": SIZES[:2]}, r"^gflops: .*1e-05.* 0\.00.* 1x1x1"),
        ({}, "^budget: .*gflops or ms"),
        ({"gflops": 1, "ms": 1}, "^budget: .*gflops or ms"),
        ({"gflops": -1}, "^gflops: found -1"),
        ({"gflops": 1, "sizes": [(2, 2)]}, r"\(2, 2\)"),
        ({"ms": 1, "sizes": []}, "^sizes: found none"),
        ({"ms": 1, "batch_size": 0}, "^batch_size: found 0"),
    ],
)
def test_invalid_arguments_and_impossible_budgets_are_named(model, arguments, words):
    with pytest.raises(ValueError, match=words):
        for_budget(model, **arguments)


def test_default_sizes_are_fractions_of_the_lookup_grid():
    image = LookupViT(3, (1, 224, 224), (1, 16, 16), (1, 6, 6), 32, 1, 2)
    assert [k for _, k, _ in budget.default_sizes(image)] == [4, 5, 6, 7, 9, 10]


def test_a_fixed_compressed_size_is_the_only_default():
    fixed = LookupViT(3, compressed_size=(4, 2, 2), compressed_init="random", **SMALL)
    assert budget.default_sizes(fixed) == [(4, 2, 2)] == [for_budget(fixed, gflops=1).compressed_size]
