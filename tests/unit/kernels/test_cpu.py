"""The CPU implementation, and the properties that the fused operators give to every implementation, against float64."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import dispatched_exchange, errors, random_inputs, reference_exchange, solve
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lookupvivit import kernels
from lookupvivit.kernels import buffers, chunked, reference

pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.fixture(autouse=True)
def cpu_implementation():
    with kernels.use("cpu"):
        yield


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 90), st.integers(1, 150), st.integers(1, 70), st.integers())
def test_arbitrary_shapes(b, h, m, n, d, seed):
    found = errors(random_inputs(b, h, m, n, d, seed=seed % 2**31))
    if n == 1:  # the softmax of a single score is constant: its gradients are rounding errors
        del found["d_q"], found["d_k"]
    assert all(error < (1e-4 if name.startswith("d_") else 1e-5) for name, error in found.items()), found


@pytest.mark.parametrize(("m", "n"), [(1100, 40), (40, 1100), (513, 1025)])
def test_more_tokens_than_one_chunk(m, n):
    found = errors(random_inputs(1, 2, m, n, 16))
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize(("chunk", "largest_kept"), [(1, 2**29), (2 * 70 * 90, 2**29), (1, 0), (2 * 70 * 90, 0)])
def test_heads_in_several_chunks_with_and_without_kept_attention(monkeypatch, chunk, largest_kept):
    monkeypatch.setattr(chunked, "CHUNK", chunk)
    monkeypatch.setattr(chunked, "LARGEST_KEPT", largest_kept)
    found = errors(random_inputs(2, 7, 70, 90, 16))
    assert max(found.values()) < 1e-5, found


def test_attention_is_freed_before_the_backward_pass():
    q, k, v, w = (x.requires_grad_() for x in random_inputs(2, 3, 5, 7, 8)[:4])
    _, weights = kernels.gather(q, k, v)
    assert weights.state.shape == (2, 3, 5, 7)
    attention = weakref.ref(weights.state)
    result = kernels.infuse(weights, w)
    del weights
    assert attention() is None
    result.sum().backward()


def test_tensors_in_use_do_not_share_a_workspace():
    like = torch.empty(0)
    first, second = (buffers.workspace((3, 5), like).fill_(value) for value in (1, 2))
    address = first.data_ptr()
    row = first[1]  # keeps the memory
    del first
    third = buffers.workspace((2, 5), like).fill_(3)
    assert third.data_ptr() != address
    assert [row.unique().item(), second.unique().item(), third.unique().item()] == [1, 2, 3]
    del row
    assert buffers.workspace((3, 5), like).data_ptr() == address


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errors_are_at_most_those_of_the_reference(dtype):
    inputs = random_inputs(1, 2, 150, 1568, 64, dtype)
    found = errors(inputs)
    with kernels.use("reference"):
        reference_errors = errors(inputs)
    assert max(found.values()) < 1e-2, found
    assert all(found[name] < 1.2 * reference_errors[name] for name in found), (found, reference_errors)


def test_scores_that_overflow_without_subtracting_the_row_maximum():
    inputs = random_inputs(1, 2, 9, 33, 16)
    inputs[0] *= 40
    found = errors(inputs)
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("exchange", [reference_exchange, dispatched_exchange])
def test_gradients_match_finite_differences(exchange):
    leaves = [x.requires_grad_() for x in random_inputs(2, 2, 3, 5, 4, torch.float64)[:4]]
    assert torch.autograd.gradcheck(lambda *inputs: exchange(*inputs, 0.3), leaves)


def test_operators_pass_opcheck():
    q, k, v, w, *_ = (x.requires_grad_() for x in random_inputs(2, 3, 5, 7, 8))
    ops = torch.ops.lookupvivit
    torch.library.opcheck(ops.gather.default, (q, k, v, "cpu", True))
    head_major = [x.detach().contiguous().requires_grad_() for x in (q, k, v)]
    torch.library.opcheck(ops.gather.default, (*head_major, "cpu", True))
    _, weights = kernels.gather(q, k, v)
    torch.library.opcheck(ops.infuse.default, (q, k, weights.state.detach(), w, None, None, None, "cpu"))
    for directions in ((v, w, w, w, w, v), (v, w, w, None, None, None), (None, None, None, w, w, v)):
        inputs = [x if x is None else x.detach() for x in (q, k, weights.state, *directions)]
        torch.library.opcheck(ops.exchange_backward.default, (*inputs, "cpu"))


def test_compiled_exchange_is_one_graph_with_equal_results():
    inputs = random_inputs(2, 3, 17, 29, 16)
    torch._dynamo.reset()
    compiled = torch.compile(dispatched_exchange, fullgraph=True)
    for a, b in zip(solve(compiled, inputs), solve(dispatched_exchange, inputs), strict=True):
        torch.testing.assert_close(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = solve(compiled, inputs)
    for a, b in zip(under_autocast, solve(reference_exchange, inputs), strict=True):
        assert (a - b).norm() < 1e-2 * b.norm()


def split_by_a_graph_break(q, k, v, w, mixing):
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
@pytest.mark.parametrize("exchange", [split_by_a_graph_break, infusion_recomputed, gather_recomputed])
def test_gather_and_infuse_work_in_separate_graphs(exchange, compiled):
    inputs = random_inputs(2, 3, 17, 29, 16)
    torch._dynamo.reset()
    split = torch.compile(exchange, backend="aot_eager") if compiled else exchange
    for a, b in zip(solve(split, inputs), solve(reference_exchange, inputs), strict=True):
        torch.testing.assert_close(a, b)


# The link, which carries the infusion's share of the gradients to the gather


def weighted_sum(result: torch.Tensor) -> torch.Tensor:
    return (result * torch.arange(result.numel(), dtype=result.dtype).view_as(result).cos()).sum()


LOSSES = {
    "gather alone": lambda out, infuse, w: weighted_sum(out),
    "infusion alone": lambda out, infuse, w: weighted_sum(infuse(w)),
    "two infusions": lambda out, infuse, w: weighted_sum(infuse(w)) + weighted_sum(infuse(w * out).sin()),
    "first of two unused": lambda out, infuse, w: (infuse(w), weighted_sum(out) + weighted_sum(infuse(w + out)))[1],
    "infusion of an infusion": lambda out, infuse, w: weighted_sum(infuse(w * infuse(out).mean(2, keepdim=True))),
    "expanded gradient": lambda out, infuse, w: infuse(w + out).sum(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_for_every_use_of_the_weights(loss):
    inputs = random_inputs(2, 2, 6, 9, 8, torch.float64)[:4]

    def gradients(gather, infuse):
        q, k, v, w = leaves = [x.detach().requires_grad_() for x in inputs]
        out, weights = gather(q, k, v)
        value = LOSSES[loss](out, lambda values: infuse(weights, values), w)
        grads = torch.autograd.grad(value, leaves, allow_unused=True)
        return [torch.zeros_like(x) if grad is None else grad for x, grad in zip(leaves, grads, strict=True)]

    fused_gradients = gradients(kernels.gather, kernels.infuse)
    for a, b in zip(fused_gradients, gradients(reference.gather, reference.infuse), strict=True):
        torch.testing.assert_close(a, b)


def test_repeated_backward_passes_are_equal():
    q, k, v, w, g, h = random_inputs(1, 2, 6, 9, 8)
    leaves = [x.requires_grad_() for x in (q, k, v, w)]
    results = dispatched_exchange(*leaves, 0.3)
    first, second = (torch.autograd.grad(results, leaves, (g, h), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (0, 1, 2), (3,)])
def test_frozen_inputs_get_no_gradient(frozen):
    inputs = random_inputs(1, 2, 6, 9, 8, torch.float64)

    def grads(exchange):
        leaves = [x.detach().clone().requires_grad_(i not in frozen) for i, x in enumerate(inputs[:4])]
        results = zip(exchange(*leaves, 0.3), inputs[4:], strict=True)
        differentiable = [(result, grad) for result, grad in results if result.requires_grad]
        torch.autograd.backward(*zip(*differentiable, strict=True))
        return [x.grad for x in leaves]

    for a, b in zip(grads(dispatched_exchange), grads(reference_exchange), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_second_derivatives_raise():
    leaves = [x.requires_grad_() for x in random_inputs(1, 1, 3, 4, 8)[:4]]
    loss = sum(x.square().sum() for x in dispatched_exchange(*leaves, 0.3))
    grads = torch.autograd.grad(loss, leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        sum(x.sum() for x in grads).backward()


def test_flops_equal_those_of_the_reference():
    inputs = random_inputs(1, 2, 12, 40, 16)
    counts = []
    for exchange in (reference_exchange, dispatched_exchange):
        with FlopCounterMode(display=False) as counter:
            solve(exchange, inputs)
        counts.append(counter.get_total_flops())
    assert counts == [9 * 2 * 2 * 12 * 40 * 16] * 2


def test_autocast_casts_to_its_dtype():
    q, k, v, w, *_ = random_inputs(1, 2, 12, 40, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out, weights = kernels.gather(q, k, v.bfloat16())  # norms return float32, projections bfloat16
        infused = kernels.infuse(weights, w)
    assert out.dtype == infused.dtype == weights.q.dtype == torch.bfloat16 and weights.state.dtype == torch.float32


def test_forward_mode_derivatives_are_those_of_the_reference():
    q, k, v, _, tangent, _ = random_inputs(1, 2, 3, 5, 8)

    def derivative():
        return torch.func.jvp(lambda q: kernels.infuse(kernels.gather(q, k, v)[1], v[:, :, :3]), (q,), (tangent,))[1]

    found = derivative()
    with kernels.use("reference"):
        assert found.norm() > 0.01 and torch.equal(found, derivative())


def test_function_transforms_are_those_of_the_reference():
    q, k, v, w, *_ = random_inputs(1, 2, 3, 5, 8)

    def loss(q, k):
        return weighted_sum(kernels.infuse(kernels.gather(q, k, v)[1], w))

    leaves = [x.requires_grad_() for x in (q, k)]
    d_q, d_k = torch.autograd.grad(loss(*leaves), leaves)
    transformed = torch.func.grad(loss, (0, 1))(q, k)
    per_sample = torch.func.vmap(torch.func.grad(loss), (0, None))(torch.stack([q, q.flip(2)]), k)
    torch.testing.assert_close(transformed, (d_q, d_k))
    torch.testing.assert_close(per_sample[0], d_q)


def test_weights_computed_without_gradients_stay_constant():
    q, k, v, w, *_ = (x.requires_grad_() for x in random_inputs(1, 2, 3, 5, 8))
    with torch.no_grad():
        _, weights = kernels.gather(q, k, v)
    kernels.infuse(weights, w).sum().backward()
    assert w.grad is not None and q.grad is None and k.grad is None


@pytest.mark.parametrize(("b", "m", "n"), [(2, 0, 5), (2, 3, 0), (0, 3, 5)])
def test_empty_token_sets(b, m, n):
    gathered, infused = dispatched_exchange(*random_inputs(b, 2, m, n, 8)[:4], 0.3)
    assert gathered.shape == (b, 2, m, 8) and infused.shape == (b, 2, n, 8)
