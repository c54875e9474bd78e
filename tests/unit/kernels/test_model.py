"""Whole models with and without a materialised attention matrix: equal results, less memory."""

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lookupvivit import kernels
from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.models.lookupvit import LookupViT, LookupViTBlock

pytestmark = pytest.mark.usefixtures("two_threads")
SMALL = {"input_size": (4, 40, 32), "tubelet": (2, 8, 8), "compressed_size": (2, 3, 3), "width": 32, "num_heads": 4}


def small_model(**overrides) -> LookupViT:
    torch.manual_seed(0)
    model = LookupViT(5, **{**SMALL, "depth": 3, **overrides})
    for name, parameter in model.named_parameters():
        if "head.weight" in name:  # initially zero, so that nothing below would get a gradient
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def train_step(model, name, backward="within"):
    """Logits and the gradient of every parameter.

    Args:
        name: the implementation of the forward pass.
        backward: runs "within" the choice, "after" it, or in another "thread", where nothing was chosen.
    """
    model.zero_grad()
    video = torch.randn(3, 3, 4, 40, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)  # every step drops the same paths
    with kernels.use(name):
        output = model(video)
        loss = sum(output[field].square().sum() for field in model.supervised)
        if backward == "within":
            loss.backward()
    if backward == "after":
        loss.backward()
    if backward == "thread":
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    return output.logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_equal_steps(step, other):
    (logits, gradients), (other_logits, other_gradients) = step, other
    torch.testing.assert_close(logits, other_logits)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backward", ["within", "after", "thread"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "overrides",
    [{}, {"drop_path": 0.5}, {"classifiers": "compressed"}, {"classifiers": "compressed", "exchange": "gather"}],
)
@pytest.mark.parametrize("name", ["cpu", "folded"])
def test_logits_and_gradients_equal_the_reference(name, overrides, checkpointing, backward):
    model = small_model(**overrides)
    expected = train_step(model, "reference")
    set_activation_checkpointing(model, checkpointing)
    assert_equal_steps(train_step(model, name, backward), expected)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_recomputation_uses_the_implementation_of_the_forward_pass(name, monkeypatch):
    called = []
    original = kernels.gather

    def recording_gather(*inputs, **options):
        out, weights = original(*inputs, **options)
        called.append(getattr(weights, "implementation", "reference"))
        return out, weights

    monkeypatch.setattr(kernels, "gather", recording_gather)
    model = small_model()
    set_activation_checkpointing(model)
    train_step(model, name, backward="thread")
    assert called == [name] * 6  # three blocks, each forward and recomputed


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["cpu", "folded"])
def test_compiled_blocks(name, checkpointing):
    torch._dynamo.reset()
    model = small_model(depth=2)
    expected = train_step(model, "reference")
    set_activation_checkpointing(model, checkpointing)
    for block in model.blocks:  # checkpointing inside, compilation outside, as in training
        block.compile(fullgraph=True, backend="aot_eager")
    assert_equal_steps(train_step(model, name), expected)


def test_attention_maps_and_exported_programs_do_not_use_the_custom_operators():
    model, video = small_model().eval(), torch.randn(2, 3, 4, 40, 32)
    with kernels.use("cpu"):
        plain, with_maps = model(video), model(video, return_intermediates=True)
        program = torch.export.export(model, (video,))
        traced = torch.jit.trace(model, video, strict=False)
    assert with_maps.intermediates[0]["attention"].shape == (2, 4, 2, 3, 3, 2, 5, 4)
    assert "lookupvivit::" not in str(traced.inlined_graph)
    assert not [node for node in program.graph.nodes if "lookupvivit" in str(node.target)]
    for logits in (with_maps.logits, program.module()(video)["logits"], traced(video)["logits"]):
        torch.testing.assert_close(logits, plain.logits)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_block_returns_its_attention_with_and_without_checkpointing(checkpointing):
    model = small_model()
    set_activation_checkpointing(model, checkpointing)
    compressed, lookup = torch.randn(1, 6, 32), torch.randn(1, 20, 32)
    assert model.blocks[0](compressed, lookup, return_attention=True)[2].shape == (1, 4, 6, 20)


def saved_bytes(name: str, dtype: torch.dtype) -> int:
    """Bytes that one block of LookupViViT-B 9x9x8 saves for the backward pass of one clip, each storage once."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(), kernels.use(name), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        block = LookupViTBlock(768, 12)
        tokens = (torch.randn(1, count, 768, requires_grad=True) for count in (8 * 9 * 9, 16 * 14 * 14))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(*tokens)
        for parameter in block.parameters():
            storages.pop(parameter.untyped_storage()._cdata, None)
    return sum(storages.values())


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.6), (torch.bfloat16, 0.45)])
def test_the_fused_exchange_saves_less_for_the_backward_pass(dtype, share):
    assert saved_bytes("auto", dtype) == saved_bytes("cpu", dtype) < share * saved_bytes("reference", dtype)
