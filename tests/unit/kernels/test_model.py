"""Whole models with and without an attention matrix: the same numbers, less memory."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lookupvivit import kernels
from lookupvivit.layers.activation_checkpointing import recompute_activations
from lookupvivit.models.lookupvit import LookupViT, LookupViTBlock

pytestmark = pytest.mark.usefixtures("two_threads")


def small(**overrides) -> LookupViT:
    torch.manual_seed(0)
    sizes = {"input_size": (4, 40, 32), "tubelet": (2, 8, 8), "compressed_size": (2, 3, 3), "width": 32, "depth": 3}
    model = LookupViT(5, **{**sizes, "num_heads": 4, **overrides})
    for name, parameter in model.named_parameters():
        if "head.weight" in name:  # zero at first: nothing behind it would get a gradient
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def step(model, name, late=False):
    """Logits and the gradient of every parameter; ``late``: the backward pass runs when the choice is over."""
    model.zero_grad()
    video = torch.randn(3, 3, 4, 40, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)  # the same paths dropped
    with kernels.use(name):
        output = model(video)
        loss = sum(output[head].square().sum() for head in model.supervised)
        if not late:
            loss.backward()
    if late:
        loss.backward()
    return output.logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("overrides", [{}, {"drop_path": 0.5}, {"heads": "compressed"}, {"exchange": "gather"}])
@pytest.mark.parametrize("engine", ["cpu", "folded"])
def test_the_same_logits_and_gradients(engine, overrides, recompute, late):
    if "exchange" in overrides:
        overrides = {**overrides, "heads": "compressed"}
    model = small(**overrides)
    logits, gradients = step(model, "reference")
    recompute_activations(model, recompute)
    fast_logits, fast_gradients = step(model, engine, late)
    torch.testing.assert_close(fast_logits, logits)
    for name, gradient in gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("engine", ["cpu", "folded"])
def test_compiled_blocks(engine, recompute):
    torch._dynamo.reset()
    model = small(depth=2)
    logits, gradients = step(model, "reference")
    recompute_activations(model, recompute)
    for block in model.blocks:  # from the inside out, as the engine does
        block.compile(fullgraph=True, backend="aot_eager")
    fast_logits, fast_gradients = step(model, engine)
    torch.testing.assert_close(fast_logits, logits)
    for name, gradient in gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, rtol=1e-4, atol=1e-5)


def test_maps_and_programs_need_no_operator_of_ours():
    model, video = small().eval(), torch.randn(2, 3, 4, 40, 32)
    with kernels.use("cpu"):
        plain, seen = model(video), model(video, return_intermediates=True)
        program = torch.export.export(model, (video,))
        traced = torch.jit.trace(model, video, strict=False)
    assert seen.intermediates[0]["attention"].shape == (2, 4, 2, 3, 3, 2, 5, 4)
    assert "lookupvivit::" not in str(traced.inlined_graph)
    assert not [node for node in program.graph.nodes if "lookupvivit" in str(node.target)]
    for other in (seen.logits, program.module()(video)["logits"], traced(video)["logits"]):
        torch.testing.assert_close(other, plain.logits)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_block_gives_its_attention_also_where_it_is_recomputed(recompute):
    model = small()
    recompute_activations(model, recompute)
    compressed, lookup = torch.randn(1, 6, 32), torch.randn(1, 20, 32)
    assert model.blocks[0](compressed, lookup, return_attention=True)[2].shape == (1, 4, 6, 20)


def kept(name: str, dtype: torch.dtype) -> int:
    """Bytes a block of LookupViViT-B 9x9x8 keeps of one clip for its backward pass, each storage once."""
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(), kernels.use(name), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        block = LookupViTBlock(768, 12)
        tokens = (torch.randn(1, count, 768, requires_grad=True) for count in (8 * 9 * 9, 16 * 14 * 14))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            block(*tokens)
        for parameter in block.parameters():
            storages.pop(parameter.untyped_storage()._cdata, None)
    return sum(storages.values())


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.6), (torch.bfloat16, 0.45)])
def test_much_less_is_kept_for_the_backward_pass(dtype, share):
    assert kept("auto", dtype) == kept("cpu", dtype) < share * kept("reference", dtype)
