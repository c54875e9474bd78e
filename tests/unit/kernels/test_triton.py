"""The GPU kernels against the equations in float64: on a GPU where there is one, else in Triton's interpreter.

The interpreter is chosen before Triton is imported, so that the tests run again in a process of their own.
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import chosen, errors, problem, solve
from support.paths import ROOT

from lookupvivit import kernels

pytest.importorskip("triton")
RUNS = torch.cuda.is_available() or kernels.INTERPRETED
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORWARD, BACKWARD = 1e-5, 1e-4
needs_kernels = pytest.mark.skipif(not RUNS, reason="no GPU: run by test_in_the_interpreter, in its own process")


@pytest.fixture(autouse=True)
def triton():
    with kernels.use("triton") if RUNS else kernels.use("auto"):
        yield


def check(tensors, forward=FORWARD, backward=BACKWARD):
    found = errors([x.to(DEVICE) for x in tensors])
    if tensors[1].shape[2] == 1:  # the softmax of one score: no gradient but rounding
        del found["d_q"], found["d_k"]
    assert all(error < (backward if name.startswith("d_") else forward) for name, error in found.items()), found


@pytest.mark.parametrize("tests", ["any_strides or api", pytest.param("test", marks=pytest.mark.slow)])
@pytest.mark.skipif(RUNS, reason="the kernels run in this process")
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
def test_any_shape(b, h, m, n, d, seed):
    check(problem(b, h, m, n, d, seed=seed % 2**31))


@needs_kernels
@pytest.mark.parametrize(
    ("dtype", "d"),
    [(torch.float32, d) for d in (32, 48, 64, 128)] + [(torch.bfloat16, d) for d in (64, 96)] + [(torch.float16, 64)],
)
def test_head_widths_and_dtypes(dtype, d):
    exact = dtype == torch.float32
    check(problem(1, 2, 67, 70, d, dtype), FORWARD if exact else 1e-2, BACKWARD if exact else 1e-2)


@needs_kernels
def test_scores_that_overflow_without_their_row_maximum():
    tensors = problem(1, 2, 9, 70, 16)
    tensors[0] *= 40
    check(tensors)


@needs_kernels
@pytest.mark.parametrize("use", ["gathered", "infused", "infused twice"])
def test_each_half_alone_and_twice(use):
    tensors = [x.to(DEVICE) for x in problem(2, 2, 21, 35, 24)]

    def exchange(q, k, v, w, mixing):
        gathered, weights = kernels.gather(q, k, v)
        if use == "gathered":
            return gathered, torch.zeros_like(k) * (w.sum() + v.sum())
        infused = kernels.infuse(weights, w)
        if use == "infused twice":
            infused = infused + kernels.infuse(weights, w * gathered)
        return v.mean(2, keepdim=True).expand_as(gathered), infused

    found = solve(exchange, tensors)
    with kernels.use("reference"):
        exact = solve(exchange, [x.double() for x in tensors])
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_any_strides():
    dense = problem(2, 2, 21, 35, 24)
    spread = [torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0].to(DEVICE) for x in dense]
    assert spread[0].stride(-1) == 2
    for a, b in zip(solve(chosen, spread), solve(chosen, [x.to(DEVICE) for x in dense]), strict=True):
        torch.testing.assert_close(a, b)


@needs_kernels
def test_precision_set_by_the_newer_api():
    """After it, the older one's getter raises."""
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        check(problem(1, 2, 21, 35, 24), 1e-2, 1e-2)
    finally:
        matmul.fp32_precision = before


@needs_kernels
def test_results_repeat_and_compile():
    tensors = [x.to(DEVICE) for x in problem(1, 2, 40, 70, 32)]
    first, again = solve(chosen, tensors), solve(chosen, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for a, b in zip(solve(torch.compile(chosen, fullgraph=True, backend="aot_eager"), tensors), first, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(kernels.INTERPRETED, reason="nothing is compiled in the interpreter")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "d", "precision"),
    [
        ("bf16", 64, "ieee"),
        ("fp16", 48, "ieee"),
        ("bf16", 128, "ieee"),
        ("fp32", 64, "ieee"),
        ("fp32", 128, "ieee"),
        ("fp32", 64, "tf32"),
        ("fp32", 128, "tf32"),
    ],
)
def test_compiles_for_gpus_that_need_not_be_here(dtype, d, precision, capability):
    """Down to machine code, with strides and pointers as aligned as a model's, within the smallest shared memory."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lookupvivit.kernels import triton as gpu

    torch_dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    sizes = gpu.tiles(d, torch_dtype)
    options = {name: sizes.pop(name) for name in ("num_warps", "num_stages")}
    both = {"GATHERED": True, "INFUSED": True}
    cases = [(gpu._gather, {})]
    cases += [
        (kernel, {**kinds, "LSE_OF_ROWS": side})
        for side in (False, True)
        for kernel, kinds in ((gpu._apply, {}), (gpu._gradient, both))
    ]
    for kernel, kinds in cases:
        fixed = {**sizes, **kinds, "PRECISION": precision}
        signature, constants, hints = {}, {}, {}
        for i, name in enumerate(kernel.arg_names):
            if name in fixed:
                signature[name], constants[(i,)] = "constexpr", fixed[name]
            elif name.endswith("strides"):
                signature[name], constants[(i, 3)] = ("i32", "i32", "i32", "constexpr"), 1
                hints |= {(i, axis): [["tt.divisibility", 16]] for axis in range(3)}
            elif name == "scale" or name in ("heads", "m", "n", "row_count", "column_count"):
                signature[name] = "fp32" if name == "scale" else "i32"
            else:
                signature[name] = "*fp32" if name in ("lse", "row_term") else f"*{dtype}"
                hints[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(kernel, signature, constants, hints)
        compiled = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert compiled.asm["cubin"] and compiled.metadata.shared <= 99 * 1024, (kernel, compiled.metadata.shared)


def test_what_does_not_fit_is_told(monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    with kernels.use("triton"), pytest.raises(ValueError, match="'triton', found tensors on cpu; choose 'auto'"):
        kernels.gather(*problem(1, 1, 3, 4, 8)[:3])
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    with kernels.use("triton"), pytest.raises(ValueError, match="found heads of width 160, more than 128"):
        kernels.gather(*problem(1, 1, 3, 4, 160)[:3])
    with kernels.use("triton"), pytest.raises(ValueError, match="found float64"):
        kernels.gather(*problem(1, 1, 3, 4, 8, torch.float64)[:3])


@pytest.mark.parametrize(("capability", "engine"), [((7, 5), "reference"), ((8, 0), "triton"), ((10, 0), "triton")])
def test_gpus_before_ampere_take_the_reference(monkeypatch, capability, engine):
    properties = SimpleNamespace(major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(kernels, "LARGE", 0)
    gpu = SimpleNamespace(type="cuda", index=0)
    tokens = SimpleNamespace(is_cuda=True, device=gpu, dtype=torch.bfloat16, shape=torch.Size((1, 1, 3, 64)))
    with kernels.use("auto"):
        assert kernels._engine(tokens, tokens) == engine
