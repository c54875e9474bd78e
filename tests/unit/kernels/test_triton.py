"""The Triton kernels against the equations in float64: on a GPU if there is one, else in Triton's interpreter.

Triton reads the choice of the interpreter when it is imported. Therefore the tests run again in a process of their own.
"""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import dispatched_exchange, errors, random_inputs, solve
from support.paths import ROOT

from lookupvivit import kernels
from lookupvivit.kernels import tuned
from lookupvivit.kernels.tiles import DESCRIPTORS_SINCE, Tiles, candidates, default_tiles
from lookupvivit.kernels.triton_support import INTERPRETED
from lookupvivit.profiling.gpu_report import resources

pytest.importorskip("triton")
CAN_RUN = torch.cuda.is_available() or INTERPRETED
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_kernels = pytest.mark.skipif(not CAN_RUN, reason="no GPU: test_in_the_interpreter runs it in its own process")


@pytest.fixture(autouse=True)
def triton_implementation():
    with kernels.use("triton" if CAN_RUN else "auto"):
        yield


def assert_accurate(inputs, forward=1e-5, backward=1e-4):
    found = errors([x.to(DEVICE) for x in inputs])
    if inputs[1].shape[2] == 1:  # the softmax of a single score is constant: its gradients are rounding errors
        del found["d_q"], found["d_k"]
    assert all(error < (backward if name.startswith("d_") else forward) for name, error in found.items()), found


@pytest.mark.parametrize(
    "tests", ["strides or new_api or tiles or descriptors", pytest.param("test", marks=pytest.mark.slow)]
)
@pytest.mark.skipif(CAN_RUN, reason="the kernels run in this process")
def test_in_the_interpreter(tests):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", __file__, "-k", tests],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]


@needs_kernels
@settings(max_examples=6, deadline=None)
@given(st.integers(1, 2), st.integers(1, 2), st.integers(1, 80), st.integers(1, 80), st.integers(1, 70), st.integers())
def test_arbitrary_shapes(b, h, m, n, d, seed):
    assert_accurate(random_inputs(b, h, m, n, d, seed=seed % 2**31))


@needs_kernels
@pytest.mark.parametrize("d", [32, 48, 64, 128])
def test_head_widths_in_float32(d):
    assert_accurate(random_inputs(1, 2, 67, 70, d))


@needs_kernels
@pytest.mark.parametrize(("dtype", "d"), [(torch.bfloat16, 64), (torch.bfloat16, 96), (torch.float16, 64)])
def test_half_precision(dtype, d):
    assert_accurate(random_inputs(1, 2, 67, 70, d, dtype), forward=1e-2, backward=1e-2)


@needs_kernels
def test_scores_that_overflow_without_subtracting_the_row_maximum():
    inputs = random_inputs(1, 2, 9, 70, 16)
    inputs[0] *= 40
    assert_accurate(inputs)


@needs_kernels
@pytest.mark.parametrize("use", ["gather", "infusion", "two infusions"])
def test_each_direction_alone_and_two_infusions(use):
    inputs = [x.to(DEVICE) for x in random_inputs(2, 2, 21, 35, 24)]

    def exchange(q, k, v, w, mixing):
        gathered, weights = kernels.gather(q, k, v)
        if use == "gather":
            return gathered, torch.zeros_like(k) * (w.sum() + v.sum())
        infused = kernels.infuse(weights, w)
        if use == "two infusions":
            infused = infused + kernels.infuse(weights, w * gathered)
        return v.mean(2, keepdim=True).expand_as(gathered), infused

    computed = solve(exchange, inputs)
    with kernels.use("reference"):
        exact = solve(exchange, [x.double() for x in inputs])
    for a, b in zip(computed, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize(("m", "n"), [(32, 64), (33, 64), (32, 63), (7, 5)])
@pytest.mark.parametrize("descriptors", [False, True])
def test_full_and_partial_tiles(m, n, descriptors):
    """With tiles of 16 columns: only full ones, a partial last one on either side, and only a partial one."""
    with tuned.force_tiles(Tiles(32, 16, 4, 2, descriptors)):
        assert_accurate(random_inputs(1, 2, m, n, 16))


@needs_kernels
@pytest.mark.parametrize("d", [24, 23])
def test_descriptors_of_heads_narrower_than_a_tile_and_of_tensors_that_are_not_aligned(d):
    with tuned.force_tiles(Tiles(32, 16, 4, 2, descriptors=True)):
        assert_accurate(random_inputs(2, 2, 21, 35, d))


@needs_kernels
def test_arbitrary_strides():
    dense = random_inputs(2, 2, 21, 35, 24)
    strided = [torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0].to(DEVICE) for x in dense]
    assert strided[0].stride(-1) == 2
    expected = solve(dispatched_exchange, [x.to(DEVICE) for x in dense])
    for a, b in zip(solve(dispatched_exchange, strided), expected, strict=True):
        torch.testing.assert_close(a, b)


@needs_kernels
def test_tf32_set_by_the_new_api():
    """After `fp32_precision` was set, the getter of the legacy API raises."""
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        assert_accurate(random_inputs(1, 2, 21, 35, 24), forward=1e-2, backward=1e-2)
    finally:
        matmul.fp32_precision = before


@needs_kernels
def test_results_are_reproducible_and_equal_when_compiled():
    inputs = [x.to(DEVICE) for x in random_inputs(1, 2, 40, 70, 32)]
    first, second = solve(dispatched_exchange, inputs), solve(dispatched_exchange, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    compiled = torch.compile(dispatched_exchange, fullgraph=True, backend="aot_eager")
    for a, b in zip(solve(compiled, inputs), first, strict=True):
        torch.testing.assert_close(a, b)


# Compilation to machine code, which needs no GPU


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize(
    ("dtype", "d", "precision", "capability"),
    [
        (torch.bfloat16, 64, "ieee", 80),
        *(
            pytest.param(dtype, d, precision, capability, marks=pytest.mark.slow)
            for dtype, d, precision, capability in (
                (torch.float16, 48, "ieee", 80),
                (torch.bfloat16, 128, "ieee", 90),
                (torch.float32, 64, "ieee", 80),
                (torch.float32, 64, "tf32", 90),
                (torch.float32, 128, "ieee", 90),
                (torch.float32, 128, "tf32", 80),
            )
        ),
        pytest.param(torch.bfloat16, 64, "ieee", 90, marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_within_the_smallest_shared_memory(dtype, d, precision, capability):
    for kernel in resources.KERNELS:
        tiles = default_tiles(kernel, d, dtype)
        needed = resources.compile_kernel(kernel, tiles, capability, d, dtype, precision)
        assert needed.shared <= 99 * 1024, (kernel, needed)
        assert needed.spilled <= (16 if dtype == torch.float32 else 0), (kernel, needed)


def test_the_table_of_resources_has_candidates_for_every_kernel_and_none_that_spills():
    for capability in resources.SHARED_MEMORY:
        for kernel in resources.KERNELS:
            table = resources.load_resources(capability, kernel)
            assert set(table) <= set(candidates(capability))
            default = default_tiles(kernel, resources.WIDTH, resources.DTYPE)
            assert table[default].spilled == 0
            kept = resources.candidates_without_spills(capability, kernel)
            assert len(kept) >= 8 and any(tiles.stages >= 3 for tiles in kept)
            assert any(tiles.descriptors for tiles in kept) == (capability >= DESCRIPTORS_SINCE)
            assert not any(table[tiles].spilled for tiles in kept)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.slow
@pytest.mark.parametrize("kernel", resources.KERNELS)
def test_the_table_of_resources_is_what_the_compiler_finds(kernel):
    """Compilers differ by a few registers, but kernels that grew must be measured again."""
    for capability in resources.SHARED_MEMORY:
        rows = list(resources.load_resources(capability, kernel).items())
        for tiles, known in (rows[capability % 7], rows[-1]):  # the last one has descriptors, if the GPU has
            found = resources.compile_kernel(kernel, tiles, capability)
            assert abs(found.registers - known.registers) <= 32 and found.shared <= 1.1 * known.shared + 1024, tiles
