"""The FLOP counter against arithmetic by hand, Eq. 6 and torch's own counter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.registry import create_model, list_models
from lookupvivit.profiling.flops import UncountedOperatorError, count_cost
from lookupvivit.profiling.paper_costs import block_macs_lookupvit


class Attention(nn.Module):
    def forward(self, x):
        queries, rest = x[:, :, :5], x[:, :, 5:]
        return F.scaled_dot_product_attention(queries, rest, rest)


class Product(nn.Module):
    def forward(self, x):
        return x @ x.transpose(-2, -1)


class BroadcastProduct(nn.Module):
    def forward(self, x):
        return torch.ones(5, x.shape[-2]) @ x


class Einsum(nn.Module):
    def forward(self, x):
        return torch.einsum("bhmd,bhnd->bhmn", x[:, :, :5], x[:, :, 5:])


class UnknownOperator(nn.Module):
    def forward(self, x):
        return torch.logcumsumexp(x, dim=0)


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 3))

    def forward(self, x, times=1):
        for _ in range(times):
            x = self.inner(x)
        return x


CONVOLUTION = nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4))
CONVOLUTION_MACS = 2 * (2 * 2 * 3) * 8 * (3 * 2 * 4 * 4)


@pytest.mark.parametrize(
    ("module", "shape", "macs", "parameters"),
    [
        (nn.Linear(10, 7), (2, 3, 10), 2 * 3 * 10 * 7, 77),
        (CONVOLUTION, (2, 3, 4, 8, 12), CONVOLUTION_MACS, 8 * 97),
        (Product(), (4, 6, 9), 4 * 6 * 6 * 9, 0),
        (BroadcastProduct(), (4, 6, 9), 4 * 5 * 6 * 9, 0),
        (Einsum(), (2, 3, 12, 8), 2 * 3 * 5 * 7 * 8, 0),
        (Attention(), (2, 3, 12, 8), 2 * 3 * 5 * 7 * (8 + 8), 0),
        (nn.Sequential(nn.Linear(4, 4, bias=False), nn.LayerNorm(4), nn.GELU(), nn.Softmax(-1)), (5, 4), 5 * 16, 24),
    ],
)
def test_arithmetic_by_hand(module, shape, macs, parameters):
    cost = count_cost(module, shape)
    assert (cost.macs, cost.parameters) == (macs, parameters)
    assert cost.by_module[""] == macs


def test_a_convolution_on_the_meta_device_is_counted():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4)))
    assert count_cost(model, (2, 3, 4, 8, 12)).by_module == {"": CONVOLUTION_MACS, "0": CONVOLUTION_MACS}
    assert model[0].weight.is_meta


def test_counts_by_module_with_call_arguments():
    model = Repeated().train()
    cost = count_cost(model, (2, 3), times=4)
    assert cost.by_module == {"": 240, "inner": 240, "inner.0": 120, "inner.1": 120}
    assert model.training and model.inner.training


def test_the_linear_function_of_zero_3_counts_as_linear(monkeypatch):
    """DeepSpeed replaces torch's function for the whole process; training counts its model there."""
    from deepspeed.runtime.zero.linear import LinearFunctionForZeroStage3

    expected = count_cost(Repeated(), (7, 3))
    monkeypatch.setattr(F, "linear", LinearFunctionForZeroStage3.apply)
    assert count_cost(Repeated(), (7, 3)) == expected


def test_an_unknown_operator_is_named():
    with pytest.raises(UncountedOperatorError, match="aten::logcumsumexp"):
        count_cost(UnknownOperator(), (3,))


@pytest.mark.parametrize("size", [(4, 4, 4), (2, 3, 5)])
def test_a_lookupvit_equals_torchs_counter_and_equation_6(size):
    model = LookupViT(10, (8, 64, 64), (2, 8, 8), width=128, depth=3, num_heads=4).eval()
    cost = count_cost(model, (1, 3, 8, 64, 64), compressed_size=size)
    # torch's counter does not know the fused attention of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.zeros(1, 3, 8, 64, 64), compressed_size=size)
    assert 2 * cost.macs == counter.get_total_flops()
    m = size[0] * size[1] * size[2]
    assert cost.by_module["blocks.1"] == block_macs_lookupvit(4 * 8 * 8, m, 128)


@pytest.mark.parametrize("name", [name for name in list_models() if "pico" in name])
def test_a_model_on_the_meta_device_counts_as_on_the_cpu_and_as_torch_counts(name):
    model = create_model(name, 10, input_size=(4, 32, 32))
    with torch.device("meta"):
        meta_model = create_model(name, 10, input_size=(4, 32, 32))
    cost = count_cost(meta_model, (1, 3, 4, 32, 32))
    assert cost == count_cost(model, (1, 3, 4, 32, 32))
    with FlopCounterMode(display=False) as counter, kernels.use("reference"):
        meta_model(torch.empty(1, 3, 4, 32, 32, device="meta"))
    assert 2 * cost.macs == counter.get_total_flops()
