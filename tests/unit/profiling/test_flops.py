import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit.models.lookupvit import LookupViT
from lookupvivit.models.registry import create_model, list_models
from lookupvivit.profiling.equations import block_macs_lookupvit
from lookupvivit.profiling.flops import UncountedOperatorError, count, count_from_shapes


class Attend(nn.Module):
    def forward(self, x):
        query, rest = x[:, :, :5], x[:, :, 5:]
        return F.scaled_dot_product_attention(query, rest, rest)


class Multiply(nn.Module):
    def forward(self, x):
        return x @ x.transpose(-2, -1)


class Broadcast(nn.Module):
    def forward(self, x):
        return torch.ones(5, x.shape[-2]) @ x


class Einsum(nn.Module):
    def forward(self, x):
        return torch.einsum("bhmd,bhnd->bhmn", x[:, :, :5], x[:, :, 5:])


class Cumulate(nn.Module):
    def forward(self, x):
        return torch.logcumsumexp(x, dim=0)


@pytest.mark.parametrize(
    ("module", "shape", "macs", "parameters"),
    [
        (nn.Linear(10, 7), (2, 3, 10), 2 * 3 * 10 * 7, 77),
        (
            nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4)),
            (2, 3, 4, 8, 12),
            2 * (2 * 2 * 3) * 8 * (3 * 2 * 4 * 4),
            8 * 97,
        ),
        (Multiply(), (4, 6, 9), 4 * 6 * 6 * 9, 0),
        (Broadcast(), (4, 6, 9), 4 * 5 * 6 * 9, 0),
        (Einsum(), (2, 3, 12, 8), 2 * 3 * 5 * 7 * 8, 0),
        (Attend(), (2, 3, 12, 8), 2 * 3 * 5 * 7 * (8 + 8), 0),
        (
            nn.Sequential(nn.Linear(4, 4, bias=False), nn.LayerNorm(4), nn.GELU(), nn.Softmax(-1)),
            (5, 4),
            5 * 16,
            24,
        ),
    ],
)
def test_hand_arithmetic(module, shape, macs, parameters):
    cost = count(module, shape)
    assert (cost.macs, cost.parameters) == (macs, parameters)
    assert cost.by_module[""] == macs


def test_by_module_and_call_arguments():
    class Repeat(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 3))

        def forward(self, x, times=1):
            for _ in range(times):
                x = self.inner(x)
            return x

    module = Repeat().train()
    cost = count(module, (2, 3), times=4)
    assert cost.by_module == {"": 240, "inner": 240, "inner.0": 120, "inner.1": 120}
    assert module.training and module.inner.training


def test_an_unknown_operator_is_named():
    with pytest.raises(UncountedOperatorError, match="aten::logcumsumexp"):
        count(Cumulate(), (3,))


def test_a_whole_model_equals_torchs_own_counter_and_eq_6():
    model = LookupViT(10, (8, 64, 64), (2, 8, 8), width=128, depth=3, num_heads=4).eval()
    for size in ((4, 4, 4), (2, 3, 5)):
        cost = count(model, (1, 3, 8, 64, 64), compressed_size=size)
        # The plain backend: the fused one on the CPU is unknown to torch's counter.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model(torch.zeros(1, 3, 8, 64, 64), compressed_size=size)
        assert 2 * cost.macs == counter.get_total_flops()
        m = size[0] * size[1] * size[2]
        assert cost.by_module["blocks.1"] == block_macs_lookupvit(4 * 8 * 8, m, 128)


@pytest.mark.slow
def test_table_4():
    model = LookupViT(400, (32, 224, 224), (2, 16, 16), (8, 9, 9))
    cost = count(model, (1, 3, 32, 224, 224))
    assert cost.macs / 1e9 == pytest.approx(226.5, rel=0.007)  # element-wise operations are left out
    assert cost.parameters / 1e6 == pytest.approx(139.0, abs=0.05)


@pytest.mark.parametrize("name", [name for name in list_models() if "pico" in name])
def test_counting_from_shapes_equals_counting_a_trace(name):
    model = create_model(name, 10, input_size=(4, 32, 32))
    with torch.device("meta"):
        shapes = create_model(name, 10, input_size=(4, 32, 32))
    assert count_from_shapes(shapes, (1, 3, 4, 32, 32)) == count(model, (1, 3, 4, 32, 32)).macs
