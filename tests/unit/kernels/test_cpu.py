"""The CPU's exchange, and what every fused one is by its construction, against the equations in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import chosen, errors, plain, problem, solve
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.kernels import fused, reference

pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.fixture(autouse=True)
def on_the_cpu():
    with kernels.use("cpu"):
        yield


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 90), st.integers(1, 150), st.integers(1, 70), st.integers())
def test_any_shape(b, h, m, n, d, seed):
    found = errors(problem(b, h, m, n, d, seed=seed % 2**31))
    if n == 1:  # the softmax of one score: no gradient but rounding
        del found["d_q"], found["d_k"]
    assert all(error < (1e-4 if name.startswith("d_") else 1e-5) for name, error in found.items()), found


@pytest.mark.parametrize(("m", "n"), [(1100, 40), (40, 1100), (513, 1025)])
def test_more_tokens_than_a_chunk(m, n):
    found = errors(problem(1, 2, m, n, 16))
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_worse_than_the_plain_path(dtype):
    tensors = problem(1, 2, 150, 3136, 64, dtype)
    found = errors(tensors)
    with kernels.use("reference"):
        plain_errors = errors(tensors)
    assert max(found.values()) < 1e-2, found
    assert all(found[name] < 1.2 * plain_errors[name] for name in found), (found, plain_errors)


def test_scores_that_overflow_without_their_row_maximum():
    tensors = problem(1, 2, 9, 33, 16)
    tensors[0] *= 40
    found = errors(tensors)
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("exchange", [plain, chosen])
def test_gradients_are_those_of_finite_differences(exchange):
    leaves = [x.requires_grad_() for x in problem(2, 2, 3, 5, 4, torch.float64)[:4]]
    assert torch.autograd.gradcheck(lambda *inputs: exchange(*inputs, 0.3), leaves)


def test_operators_keep_their_word_to_a_compiler():
    q, k, v, w, *_ = (x.requires_grad_() for x in problem(2, 3, 5, 7, 8))
    ops = torch.ops.lookupvivit
    torch.library.opcheck(ops.gather.default, (q, k, v, "cpu", True))
    head_major = [x.detach().contiguous().requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(ops.gather.default, (*head_major, "cpu", True))
    _, weights = kernels.gather(q, k, v)
    torch.library.opcheck(ops.infuse.default, (q, k, weights.lse.detach(), w, None, None, None, "cpu"))
    for given_to in ((v, w, w, w, w, v), (v, w, w, None, None, None), (None, None, None, w, w, v)):
        inputs = [x if x is None else x.detach() for x in (q, k, weights.lse, *given_to)]
        torch.library.opcheck(ops.exchange_backward.default, (*inputs, "cpu"))


def test_a_compiled_exchange_is_one_graph_and_equal():
    tensors = problem(2, 3, 17, 29, 16)
    torch._dynamo.reset()
    for a, b in zip(solve(torch.compile(chosen, fullgraph=True), tensors), solve(chosen, tensors), strict=True):
        torch.testing.assert_close(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        found = solve(torch.compile(chosen, fullgraph=True), tensors)
    for a, b in zip(found, solve(plain, tensors), strict=True):
        assert (a - b).norm() < 1e-2 * b.norm()


def cut_between(q, k, v, w, mixing):
    gathered, weights = kernels.gather(q, k, v)
    torch._dynamo.graph_break()
    return gathered, kernels.infuse(weights, w + mixing * gathered)


def infusion_recomputed(q, k, v, w, mixing):
    gathered, weights = kernels.gather(q, k, v)
    return gathered, checkpoint(kernels.infuse, weights, w + mixing * gathered, use_reentrant=False)


def gather_recomputed(q, k, v, w, mixing):
    gathered, weights = checkpoint(kernels.gather, q, k, v, use_reentrant=False)
    return gathered, kernels.infuse(weights, w + mixing * gathered)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("exchange", [cut_between, infusion_recomputed, gather_recomputed])
def test_the_halves_may_be_parted(exchange, compiled):
    tensors = problem(2, 3, 17, 29, 16)
    torch._dynamo.reset()
    parted = torch.compile(exchange, backend="aot_eager") if compiled else exchange
    for a, b in zip(solve(parted, tensors), solve(plain, tensors), strict=True):
        torch.testing.assert_close(a, b)


# The link that carries the infusion's share of the gradients to the gather


def gradients(function, tensors):
    leaves = [x.double().requires_grad_() for x in tensors[:4]]
    grads = torch.autograd.grad(function(*leaves), leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if grad is None else grad for x, grad in zip(leaves, grads, strict=True)]


def weighted(result: torch.Tensor) -> torch.Tensor:
    return (result * torch.arange(result.numel(), dtype=result.dtype).view_as(result).cos()).sum()


USES = {
    "gather alone": lambda o, infuse, w: weighted(o),
    "infusion alone": lambda o, infuse, w: weighted(infuse(w)),
    "infused twice": lambda o, infuse, w: weighted(infuse(w)) + weighted(infuse(w * o).sin()),
    "first of two unused": lambda o, infuse, w: (infuse(w), weighted(o) + weighted(infuse(w + o)))[1],
    "infused what was infused": lambda o, infuse, w: weighted(infuse(w * infuse(o).mean(2, keepdim=True))),
    "one gradient into many": lambda o, infuse, w: infuse(w + o).sum(),
}


@pytest.mark.parametrize("use", USES)
def test_gradients_are_right_however_the_weights_are_used(use):
    tensors = problem(2, 2, 6, 9, 8)

    def through(gather, infuse):
        def loss(q, k, v, w):
            out, weights = gather(q, k, v)
            return USES[use](out, lambda values: infuse(weights, values), w)

        return gradients(loss, tensors)

    ours = through(kernels.gather, kernels.infuse)
    for a, b in zip(ours, through(reference.gather, reference.infuse), strict=True):
        torch.testing.assert_close(a, b)


def test_a_graph_may_be_walked_twice():
    q, k, v, w, g, h = problem(1, 2, 6, 9, 8)
    leaves = [x.requires_grad_() for x in (q, k, v, w)]
    results = chosen(*leaves, 0.3)
    first, second = (torch.autograd.grad(results, leaves, (g, h), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (0, 1, 2), (3,)])
def test_frozen_inputs(frozen):
    tensors = problem(1, 2, 6, 9, 8, torch.float64)

    def grads(exchange):
        leaves = [x.detach().clone().requires_grad_(i not in frozen) for i, x in enumerate(tensors[:4])]
        results = exchange(*leaves, 0.3)
        walked = [(result, grad) for result, grad in zip(results, tensors[4:], strict=True) if result.requires_grad]
        torch.autograd.backward(*zip(*walked, strict=True))
        return [x.grad for x in leaves]

    for a, b in zip(grads(chosen), grads(plain), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_no_gradient_of_a_gradient_is_made_up():
    leaves = [x.requires_grad_() for x in problem(1, 1, 3, 4, 8)[:4]]
    grads = torch.autograd.grad(sum(x.square().sum() for x in chosen(*leaves, 0.3)), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        sum(x.sum() for x in grads).backward()


def test_autocast_and_flops_are_those_of_the_plain_exchange():
    tensors = problem(1, 2, 12, 40, 16)
    counts = {}
    for name, exchange in (("plain", plain), ("fused", chosen)):
        with FlopCounterMode(display=False) as counter:
            solve(exchange, tensors)
        counts[name] = counter.get_total_flops()
    assert counts["plain"] == counts["fused"] == 9 * 2 * 2 * 12 * 40 * 16

    q, k, v, w, *_ = tensors
    with torch.autocast("cpu", torch.bfloat16):
        out, weights = kernels.gather(q, k, v.bfloat16())  # as norms and projections leave them
        infused = kernels.infuse(weights, w)
    assert out.dtype == infused.dtype == weights.q.dtype == torch.bfloat16 and weights.lse.dtype == torch.float32


def test_derivatives_in_forward_mode_are_the_references():
    q, k, v, _, towards, _ = problem(1, 2, 3, 5, 8)

    def derivative():
        return torch.func.jvp(lambda q: kernels.infuse(kernels.gather(q, k, v)[1], v[:, :, :3]), (q,), (towards,))[1]

    found = derivative()
    with kernels.use("reference"):
        assert found.norm() > 0.01 and torch.equal(found, derivative())


def test_transforms_of_functions_are_the_references():
    q, k, v, w, *_ = problem(1, 2, 3, 5, 8)

    def loss(q, k):
        return weighted(kernels.infuse(kernels.gather(q, k, v)[1], w))

    leaves = [x.requires_grad_() for x in (q, k)]
    exact = torch.autograd.grad(loss(*leaves), leaves)
    samples = torch.stack([q, q.flip(2)])
    each = torch.func.vmap(torch.func.grad(loss), (0, None))(samples, k)
    for found, right in zip((*torch.func.grad(loss, (0, 1))(q, k), each[0]), (*exact, exact[0]), strict=True):
        torch.testing.assert_close(found, right)


def test_weights_without_gradients_stay_so():
    q, k, v, w, *_ = (x.requires_grad_() for x in problem(1, 2, 3, 5, 8))
    with torch.no_grad():
        _, weights = kernels.gather(q, k, v)
    kernels.infuse(weights, w).sum().backward()
    assert w.grad is not None and q.grad is None and k.grad is None


@pytest.mark.parametrize(("b", "m", "n"), [(2, 0, 5), (2, 3, 0), (0, 3, 5)])
def test_nothing_to_exchange(b, m, n):
    gathered, infused = chosen(*problem(b, 2, m, n, 8)[:4], 0.3)
    assert gathered.shape == (b, 2, m, 8) and infused.shape == (b, 2, n, 8)


# The choice


def test_the_choice():
    small, large = problem(1, 1, 4, 5, 8)[:3], problem(1, 1, 2048, 4096, 8)[:3]
    assert isinstance(kernels.gather(*small)[1], fused.FusedWeights)
    assert isinstance(kernels.gather(*small, return_attention=True)[1], kernels.PlainWeights)
    with kernels.use("auto"):
        assert isinstance(kernels.gather(*small)[1], kernels.PlainWeights)
        assert isinstance(kernels.gather(*large)[1], fused.FusedWeights)
        with kernels.use("reference"):
            assert isinstance(kernels.gather(*large)[1], kernels.PlainWeights)
        assert kernels.chosen() == "auto"
    with (
        pytest.raises(ValueError, match="'cuda' is no implementation of the exchange; choose one of auto"),
        kernels.use("cuda"),
    ):
        pass
    with pytest.raises(ValueError, match="found tensors on meta"):
        kernels.gather(*(x.to("meta") for x in small))
