"""The table of what was measured on a GPU, and the implementations that it chooses from."""

import json
from types import SimpleNamespace

import pytest
import torch
from support.oracle import random_inputs
from torch._subclasses.fake_tensor import FakeTensorMode

from lookupvivit.kernels import cpu_flash, dispatch, flex, fused, measured, reference, sdpa, tuned
from lookupvivit.kernels.tiles import Tiles
from lookupvivit.profiling.gpu_report.resources import KERNELS

SHAPE = (2, 2, 21, 35, 16)
CLASS = "float32 d16 32x64 few"


@pytest.mark.parametrize("numbers", [[128, 32, 8, 3, 0], [128, 32, 8, 3]])  # of this version, of an earlier one
def test_tiles_of_a_class_of_shapes_are_found_and_others_have_defaults(numbers):
    q, k, *_ = random_inputs(*SHAPE)
    with tuned.use_table({"cpu": {"tiles": {"gather": {CLASS: numbers}}}}):
        assert tuned.tiles_for("gather", q, k) == Tiles(128, 32, 8, 3)
        assert tuned.tiles_for("gather", q[:, :, :17], k[:, :, :33]) == Tiles(128, 32, 8, 3)
        assert tuned.tiles_for("gather", k, q) is None  # rows and columns exchanged
        assert tuned.tiles_for("gather", q[:, :, :16], k) is None
        assert tuned.tiles_for("gather", q.bfloat16(), k) is None
        assert tuned.tiles_for("gather", q.expand(2, 2, -1, -1).repeat(7, 1, 1, 1), k) is None  # many pairs
        assert tuned.tiles_for("apply", q, k) is None
        with tuned.force_tiles(Tiles(16, 16, 4, 2)):
            assert tuned.tiles_for("apply", q, k) == Tiles(16, 16, 4, 2)
    assert tuned.tiles_for("gather", q, k) is None


def test_tiles_are_stored_as_numbers():
    for tiles in (Tiles(128, 64, 8, 3), Tiles(128, 64, 8, 3, descriptors=True)):
        assert Tiles.of(json.loads(json.dumps(tiles.to_list()))) == tiles


def test_the_committed_table_is_valid():
    for entry in json.loads(tuned.FILE.read_text()).values():
        assert set(entry["tiles"]) <= set(KERNELS)
        assert all(Tiles.of(tiles) for shapes in entry["tiles"].values() for tiles in shapes.values())
        for direction, winners in entry["fastest"].items():
            assert set(winners.values()) <= set(measured.IMPLEMENTATIONS[direction])
        assert entry["fused_from"] > 0 and entry["software"]


def test_each_direction_takes_its_own_fastest_implementation(monkeypatch):
    calls = []

    def recorder(module, function):
        def call(*arguments):
            backend = arguments[-1] if module == "sdpa" else None
            calls.append((module, function, backend))
            return (arguments[0], None) if function == "gather" else arguments[0]

        return call

    triton = SimpleNamespace(**{name: recorder("triton", name) for name in measured.IMPLEMENTATIONS})
    monkeypatch.setattr(measured, "_triton", lambda: triton)
    for module, functions in ((sdpa, ("gather", "backward")), (flex, ("infuse",))):
        for function in functions:
            monkeypatch.setattr(module, function, recorder(module.__name__.rpartition(".")[2], function))
    q, k, v, w, *_ = random_inputs(*SHAPE)
    lse = q[..., 0]

    def call_all():
        calls.clear()
        measured.gather(q, k, v)
        measured.gather_again(q, k, lse, v)
        measured.infuse(q, k, lse, w)
        measured.backward(q, k, lse, None, None)
        return list(calls)

    assert call_all() == [("triton", name, None) for name in measured.IMPLEMENTATIONS]
    winners = {"gather": "flash", "gather_again": "cudnn", "infuse": "flex", "backward": "cudnn"}
    with tuned.use_table({"cpu": {"fastest": {name: {CLASS: winner} for name, winner in winners.items()}}}):
        assert call_all() == [
            ("sdpa", "gather", "flash"),
            ("sdpa", "gather", "cudnn"),
            ("flex", "infuse", None),
            ("sdpa", "backward", "cudnn"),
        ]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_infusion_by_flex_attention():
    q, k, v, w, *_ = random_inputs(*SHAPE)
    q = 6 * q  # some lookup tokens receive almost no weight
    _, lse = cpu_flash.gather(q, k, v)
    infused = flex.infuse(q, k, lse, w)
    expected = reference.infuse(reference.attend(q.double(), k.double()), w.double())
    torch.testing.assert_close(infused.double(), expected, rtol=1e-4, atol=1e-5)
    assert infused.stride() == fused.token_major(k).stride()


@pytest.mark.parametrize("backend", sdpa.BACKENDS)
@pytest.mark.parametrize("use", ["both", "gather", "infusion"])
def test_gradients_by_attention_operators(monkeypatch, backend, use):
    """The operators of a GPU replaced by the one of the CPU, which has the same meaning."""
    attend, gradients = cpu_flash._attend, cpu_flash._attend_backward

    def forward(q, k, v, *_):
        out, lse = attend(q, k, v)
        return out, lse if backend == "flash" else lse.unsqueeze(-1)

    def backward(d_out, q, k, v, out, lse, *_):
        return gradients(d_out, q, k, v, out, lse if backend == "flash" else lse.squeeze(-1), 0.0, False)

    operators = {
        f"_scaled_dot_product_{backend}_attention": forward,
        f"_scaled_dot_product_{backend}_attention_backward": backward,
    }
    monkeypatch.setattr(sdpa, "_aten", SimpleNamespace(**operators))
    q, k, v, w, g, h = random_inputs(*SHAPE, torch.float64)
    out, lse = sdpa.gather(q, k, v, backend)
    d_w, _ = sdpa.gather(q, k, h, backend)
    gathered = None if use == "infusion" else (v, out, g)
    infused = None if use == "gather" else (w, d_w, h)
    found = sdpa.backward(q, k, lse, gathered, infused, backend)
    expected = cpu_flash.backward(q, k, lse, gathered, infused)
    for a, b in zip((out, lse, *found), (*cpu_flash.gather(q, k, v), *expected), strict=True):
        assert (a is b is None) or torch.allclose(a, b)


@pytest.mark.parametrize("backend", sdpa.BACKENDS)
def test_operators_of_a_gpu_accept_the_arguments(backend):
    """Checked by PyTorch's rules for shapes, on tensors without data."""
    with FakeTensorMode():
        counts = (5, 9, 9, 5, 5, 9)
        q, k, v, w, g, h = (torch.empty(2, 12, n, 64, dtype=torch.bfloat16, device="cuda") for n in counts)
        out, lse = sdpa.gather(q, k, v, backend)
        d_q, d_k, d_v = sdpa.backward(q, k, lse, (v, out, g), (w, g, h), backend)
    assert out.shape == d_q.shape == q.shape and lse.shape == q.shape[:3] and lse.dtype == torch.float32
    assert d_k.shape == d_v.shape == k.shape
    assert all(x.stride() == fused.token_major(x).stride() for x in (out, d_q, d_k, d_v))


def test_a_compiled_program_reads_the_table():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x + tuned.fused_from("GPU", 5), fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1)) == 5
    with tuned.use_table({"GPU": {"fused_from": 7}}):
        assert compiled(torch.zeros(1)) == 7


def test_the_size_from_which_a_gpu_does_not_materialise_the_attention_matrix(monkeypatch):
    properties = SimpleNamespace(major=9, minor=0, name="GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    device = torch.device("cuda", 0)
    tokens = SimpleNamespace(is_cuda=True, device=device, dtype=torch.bfloat16, shape=torch.Size((1, 2, 3, 64)))
    for fused_from, expected in ((18, "measured"), (19, "reference")):
        with tuned.use_table({"GPU": {"fused_from": fused_from}}):
            assert dispatch._implementation_for(tokens, tokens) == expected
