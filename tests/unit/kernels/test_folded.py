"""Layers that fold the projections of the lookup tokens, against the same layers unfolded in float64."""

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
    """A gather and an infusion that depends on its result, with non-zero biases."""

    def __init__(self, width: int, num_heads: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.gather, self.infuse = Gather(width, num_heads, 1e-6), Infuse(width, num_heads, 1e-6)
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
    """The largest relative errors, in norm, of the results and of the gradients.

    The error of a gradient that vanishes is divided by 1 % of the largest gradient's norm instead of its own.
    """
    computed = solve(layer, name, inputs)
    exact = solve(layer.double(), "reference", [x.double() for x in inputs])
    differences = [(a.double() - b).norm().item() for a, b in zip(computed, exact, strict=True)]
    norms = [b.norm().item() for b in exact]
    smallest = 0.01 * max(norms[2:])
    of_results = [error / norm for error, norm in zip(differences[:2], norms[:2], strict=True)]
    of_gradients = [error / max(norm, smallest) for error, norm in zip(differences[2:], norms[2:], strict=True)]
    return max(of_results), max(of_gradients)


def random_tokens(
    b: int, m: int, n: int, width: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    """Compressed and lookup tokens, and the incoming gradients of both results."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, count, width, generator=generator).to(dtype) for count in (m, n, m, n)]


def multiplications(layer: nn.Module, inputs: list[Tensor], name: str) -> int:
    with kernels.use(name), torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(*inputs)
    return counter.get_total_flops() // 2


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(2, 90),
    st.integers(8, 40),
    st.integers(0, 2**31 - 1),
)
def test_arbitrary_shapes(b, h, m, n, d, seed):
    results, gradients = errors(Exchange(h * d, h, seed), random_tokens(b, m, n, h * d, seed=seed))
    assert results < 1e-5 and gradients < 1e-4


def test_bfloat16_errors_are_at_most_those_of_the_unfolded_layers():
    inputs = random_tokens(2, 25, 196, 384, torch.bfloat16)
    layer = Exchange(384, 6).bfloat16()
    folded, unfolded = (errors(layer.bfloat16(), inputs, name) for name in ("folded", "reference"))
    assert folded[0] < 1e-2
    assert all(a < 1.2 * b for a, b in zip(folded, unfolded, strict=True)), (folded, unfolded)


def test_autocast_computes_in_its_dtype():
    inputs, layer = random_tokens(1, 9, 50, 64), Exchange(64, 4)
    exact = solve(layer, "reference", inputs)[:2]
    with torch.autocast("cpu", torch.bfloat16):
        computed = solve(layer, "folded", [*inputs[:2], *(x.bfloat16() for x in inputs[2:])])[:2]
    for a, b in zip(computed, exact, strict=True):
        assert a.dtype == torch.bfloat16 and (a - b).norm() < 2e-2 * b.norm()


@pytest.mark.parametrize(("shape", "folded"), [((12, 25, 196, 64), True), ((12, 49, 196, 64), False)])
def test_auto_folds_if_that_saves_enough_multiplications(shape, folded):
    num_heads, m, n, d = shape
    width = num_heads * d
    layer, inputs = Exchange(width, num_heads), random_tokens(1, m, n, width)[:2]
    counts = {name: multiplications(layer, inputs, name) for name in ("auto", "unfolded", "reference")}
    # In each direction: the projection of the lookup tokens and the product with A.
    unfolded_products = 2 * (n * width**2 + m * n * width)
    folded_products = 2 * (num_heads * m * n * width + m * width**2)
    assert counts["reference"] - counts["auto"] == folded * (unfolded_products - folded_products)
    assert counts["unfolded"] == counts["reference"]
    half = [x.bfloat16() for x in inputs]
    assert multiplications(layer.bfloat16(), half, "auto") == counts["reference"]


class LowRank(nn.Module):
    """A projection plus a learned map of rank 1, as LoRA wraps it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, 1, bias=False), nn.Linear(1, base.out_features, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.base(tokens) + self.up(self.down(tokens))


@pytest.mark.parametrize("wrapped", [("gather.v",), ("infuse.out",), ("gather.v", "infuse.out")])
def test_a_wrapped_projection_is_not_folded(wrapped):
    layer, inputs = Exchange(64, 4), random_tokens(2, 5, 40, 64)
    for name in wrapped:
        layer.set_submodule(name, LowRank(layer.get_submodule(name)))
    results, gradients = errors(layer, inputs)
    assert results < 1e-5 and gradients < 1e-4


def test_weights_of_a_tensor_subclass_are_not_folded():
    layer, inputs = Exchange(64, 4), random_tokens(2, 5, 40, 64)[:2]
    with kernels.use("auto"):
        assert isinstance(layer.gather(*inputs)[1], kernels.FoldedWeights)
        weight = layer.gather.v.weight.detach()
        layer.gather.v.weight = nn.Parameter(TwoTensor(weight, weight.clone()))
        assert not isinstance(layer.gather(*inputs)[1], kernels.FoldedWeights)


def test_returned_attention_and_exported_programs_are_not_folded():
    layer, inputs = Exchange(64, 2).eval(), random_tokens(2, 3, 50, 64)[:2]
    with kernels.use("folded"):
        assert isinstance(layer.gather(*inputs)[1], kernels.FoldedWeights)
        assert not isinstance(layer.gather(*inputs, return_attention=True)[1], kernels.FoldedWeights)
        program = torch.export.export(layer, tuple(inputs)).module()
    assert multiplications(program, inputs, "folded") == multiplications(layer, inputs, "reference")
