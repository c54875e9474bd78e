"""Which implementation a call takes."""

import threading
from types import SimpleNamespace

import pytest
import torch
from support.oracle import random_inputs

from lookupvivit import kernels
from lookupvivit.kernels import dispatch, fused, triton_support

SMALL, LARGE = (1, 1, 4, 5, 8), (1, 1, 2048, 4096, 8)


def gathered_weights(shape, **options):
    return kernels.gather(*random_inputs(*shape)[:3], **options)[1]


def test_auto_materialises_only_a_small_attention_matrix():
    with kernels.use("auto"):
        assert isinstance(gathered_weights(SMALL), kernels.PlainWeights)
        assert isinstance(gathered_weights(LARGE), fused.FusedWeights)


def test_a_named_implementation_overrides_the_size():
    with kernels.use("cpu"):
        assert isinstance(gathered_weights(SMALL), fused.FusedWeights)
        assert isinstance(gathered_weights(SMALL, return_attention=True), kernels.PlainWeights)
        with kernels.use("reference"):
            assert isinstance(gathered_weights(LARGE), kernels.PlainWeights)
        assert kernels.chosen() == "cpu"


def test_a_choice_holds_for_its_own_thread():
    default, names = kernels.chosen(), []
    with kernels.use("cpu"):
        thread = threading.Thread(target=lambda: names.append(kernels.chosen()))
        thread.start()
        thread.join()
    assert names == [default]


def test_a_compiled_function_is_compiled_again_for_another_choice():
    q, k, v, *_ = random_inputs(*SMALL)
    torch._dynamo.reset()
    compiled = torch.compile(lambda: isinstance(kernels.gather(q, k, v)[1], fused.FusedWeights), backend="eager")
    for name in ("cpu", "reference", "cpu"):
        with kernels.use(name):
            assert compiled() == (name == "cpu")


def test_unknown_names_and_unsupported_devices_raise():
    with pytest.raises(kernels.KernelsError, match="'cuda'"), kernels.use("cuda"):
        pass
    with kernels.use("cpu"), pytest.raises(kernels.KernelsError, match="tensors on meta"):
        kernels.gather(*(x.to("meta") for x in random_inputs(*SMALL)[:3]))


@pytest.mark.skipif(not triton_support.HAS_TRITON, reason="needs triton")
def test_unsupported_tensors_of_the_triton_kernels_raise(monkeypatch):
    for interpreted, shape, dtype, words in (
        (False, SMALL, torch.float32, "tensors on cpu"),
        (True, (1, 1, 3, 4, 160), torch.float32, "width 160, more than 128"),
        (True, SMALL, torch.float64, "float64"),
    ):
        monkeypatch.setattr(triton_support, "INTERPRETED", interpreted)
        with kernels.use("triton"), pytest.raises(kernels.KernelsError, match=words):
            kernels.gather(*random_inputs(*shape, dtype)[:3])


@pytest.mark.skipif(not triton_support.HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "reference"), ((8, 0), "measured"), ((10, 0), "measured")]
)
def test_gpus_before_ampere_use_the_reference(monkeypatch, capability, expected):
    properties = SimpleNamespace(major=capability[0], minor=capability[1], name="GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(dispatch, "LARGE", 0)
    device = SimpleNamespace(type="cuda", index=0)
    tokens = SimpleNamespace(is_cuda=True, device=device, dtype=torch.bfloat16, shape=torch.Size((1, 1, 3, 64)))
    with kernels.use("auto"):
        assert dispatch._implementation_for(tokens, tokens) == expected
