"""An exchange whose projections of the lookup tokens are folded, against the same layers in float64, unfolded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.layers.mhbc import Gather, Infuse

pytestmark = pytest.mark.usefixtures("two_threads")


class Exchange(nn.Module):
    """Both directions, with what comes back depending on what was read, and biases that do something."""

    def __init__(self, width: int, heads: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.gather, self.infuse = Gather(width, heads, 1e-6), Infuse(width, heads, 1e-6)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)

    def forward(self, compressed: Tensor, lookup: Tensor) -> tuple[Tensor, Tensor]:
        update, weights = self.gather(compressed, lookup)
        return update, self.infuse(compressed + update, weights)


def solve(layer: Exchange, name: str, inputs: list[Tensor]) -> list[Tensor]:
    """Both results, and the gradients of both inputs and of every parameter."""
    compressed, lookup, g, h = inputs
    leaves = [compressed.clone().requires_grad_(), lookup.clone().requires_grad_(), *layer.parameters()]
    with kernels.use(name):
        results = layer(*leaves[:2])
    return [*results, *torch.autograd.grad(results, leaves, (g, h))]


def errors(layer: Exchange, inputs: list[Tensor], name: str = "folded") -> tuple[float, float]:
    """The largest relative error, in norm, of results and of gradients; vanishing ones against 1 % of the largest."""
    found = solve(layer, name, inputs)
    exact = solve(layer.double(), "reference", [x.double() for x in inputs])
    off = [(a.double() - b).norm().item() for a, b in zip(found, exact, strict=True)]
    norms = [b.norm().item() for b in exact]
    floor = 0.01 * max(norms[2:])
    relative = [error / max(norm, floor) for error, norm in zip(off[2:], norms[2:], strict=True)]
    return max(error / norm for error, norm in zip(off[:2], norms[:2], strict=True)), max(relative)


def tokens(b: int, m: int, n: int, width: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, count, width, generator=generator).to(dtype) for count in (m, n, m, n)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(2, 90),
    st.integers(8, 40),
    st.integers(0, 2**31 - 1),
)
def test_any_shape(b, h, m, n, d, seed):
    results, gradients = errors(Exchange(h * d, h, seed), tokens(b, m, n, h * d, torch.float32, seed))
    assert results < 1e-5 and gradients < 1e-4


def test_bfloat16_is_no_worse_than_unfolded():
    inputs = tokens(2, 25, 196, 768, torch.bfloat16)
    layer = Exchange(768, 12).bfloat16()
    folded, plain = (errors(layer.bfloat16(), inputs, name) for name in ("folded", "reference"))
    assert folded[0] < 1e-2
    assert all(ours < 1.2 * theirs for ours, theirs in zip(folded, plain, strict=True)), (folded, plain)


def test_autocast_computes_in_its_dtype():
    inputs, layer = tokens(1, 9, 50, 64, torch.float32), Exchange(64, 4)
    exact = solve(layer, "reference", inputs)[:2]
    with torch.autocast("cpu", torch.bfloat16):
        found = solve(layer, "folded", [*inputs[:2], *(x.bfloat16() for x in inputs[2:])])[:2]
    for ours, right in zip(found, exact, strict=True):
        assert ours.dtype == torch.bfloat16 and (ours - right).norm() < 2e-2 * right.norm()


@pytest.mark.parametrize(("shape", "folded"), [((12, 25, 196, 64), True), ((12, 49, 196, 64), False)])
def test_folding_is_chosen_where_it_is_half_the_products(shape, folded):
    heads, m, n, d = shape
    layer, inputs = Exchange(heads * d, heads), tokens(1, m, n, heads * d, torch.float32)[:2]
    counts = {name: products(layer, inputs, name) for name in ("auto", "reference")}
    width = heads * d
    plain = 2 * (n * width**2 + m * n * width)  # projection of the lookup tokens and product with A, either way
    by_head = 2 * (heads * m * n * width + m * width**2)
    assert counts["reference"] - counts["auto"] == folded * (plain - by_head)
    assert products(layer, inputs, "unfolded") == counts["reference"]
    half = [x.bfloat16() for x in inputs]
    assert products(layer.bfloat16(), half, "auto") == counts["reference"]


def products(layer: nn.Module, inputs: list[Tensor], name: str) -> int:
    with kernels.use(name), torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(*inputs)
    return counter.get_total_flops() // 2


class LowRank(nn.Module):
    """A projection with a trained addition of rank 1, as LoRA wraps it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(base.in_features, 1), nn.Linear(1, base.out_features)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.base(tokens) + self.up(self.down(tokens))


@pytest.mark.parametrize("wrapped", [("gather.v",), ("infuse.out",), ("gather.v", "infuse.out")])
def test_a_wrapped_projection_is_not_folded(wrapped):
    layer, inputs = Exchange(64, 4), tokens(2, 5, 40, 64, torch.float32)
    for name in wrapped:
        layer.set_submodule(name, LowRank(layer.get_submodule(name)))
    results, gradients = errors(layer, inputs)
    assert results < 1e-5 and gradients < 1e-4


def test_weights_of_another_kind_are_not_folded():
    layer, inputs = Exchange(64, 4), tokens(2, 5, 40, 64, torch.float32)[:2]
    assert isinstance(layer.gather(*inputs)[1], kernels.FoldedWeights)
    weight = layer.gather.v.weight.detach()
    layer.gather.v.weight = nn.Parameter(TwoTensor(weight, weight.clone()))
    assert not isinstance(layer.gather(*inputs)[1], kernels.FoldedWeights)


def test_maps_and_programs_are_not_folded():
    layer, inputs = Exchange(64, 2).eval(), tokens(2, 3, 50, 64, torch.float32)[:2]
    with kernels.use("folded"):
        assert isinstance(layer.gather(*inputs)[1], kernels.FoldedWeights)
        assert not isinstance(layer.gather(*inputs, return_attention=True)[1], kernels.FoldedWeights)
        program = torch.export.export(layer, tuple(inputs)).module()
        with FlopCounterMode(display=False) as counter:
            program(*inputs)
    assert counter.get_total_flops() // 2 == products(layer, inputs, "reference")
