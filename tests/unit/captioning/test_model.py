"""The captioner: a causal decoder with an exact cache, and a frozen encoder of any kind."""

import pytest
import torch
from support.captioners import MEMORY_WIDTH, SMALL_DECODER, perturb, small_decoder

import lookupvivit
from lookupvivit.captioning.model import Captioner, create_captioner

IMAGE = {"input_size": (1, 16, 16), "tubelet": (1, 4, 4), "width": 16, "depth": 2, "num_heads": 2}
PERCEIVER = {**IMAGE, "num_latents": 6, "depth": 1, "stages": 2, "mlp_ratio": 2, "bands": 4}
ENCODERS = {  # name: (arguments, number of memory tokens)
    "lookupvit_ti16_3x3": ({**IMAGE, "compressed_size": (1, 2, 2)}, 4),
    "vit_ti16": (IMAGE, 16),
    "tokenlearner_ti16_at6": ({**IMAGE, "learn_at": 1, "num_tokens": 3}, 3),
    "perceiver_pico8x2": (PERCEIVER, 6),
}
LOOKUPVIT, LOOKUPVIT_ARGUMENTS = "lookupvit_ti16_3x3", ENCODERS["lookupvit_ti16_3x3"][0]


@pytest.mark.parametrize("tied", [False, True])
def test_logits_depend_on_earlier_tokens_and_the_memory_only(tied):
    model, memory = small_decoder(tied=tied), torch.randn(2, 5, MEMORY_WIDTH)
    tokens = torch.randint(3, 9, (2, 7))
    logits = model(tokens, memory)
    for position in range(7):
        changed = tokens.clone()
        changed[:, position] = (tokens[:, position] - 2) % 6 + 3
        difference = (model(changed, memory) - logits).abs().amax(dim=(0, 2))
        assert (difference[:position] < 1e-6).all()
        assert difference[position] > 1e-4
    assert ((model(tokens, memory + torch.randn(MEMORY_WIDTH)) - logits).abs().amax(dim=2) > 1e-4).all()


def test_cached_steps_equal_a_pass_over_the_whole_text():
    model, memory, tokens = small_decoder(), torch.randn(3, 5, MEMORY_WIDTH), torch.randint(3, 9, (3, 7))
    caches = model.init_caches(memory)
    stepwise = torch.stack([model.step(tokens[:, position], caches) for position in range(7)], dim=1)
    torch.testing.assert_close(stepwise, model(tokens, memory), atol=1e-5, rtol=1e-5)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match=r"found 8 .*length = 7"):
        small_decoder()(torch.zeros(2, 8, dtype=torch.long), torch.randn(2, 5, MEMORY_WIDTH))
    with pytest.raises(ValueError, match=r"^vocabulary: found 3"):
        small_decoder(vocabulary=3)
    with pytest.raises(ValueError, match=r"^length: found 1"):
        small_decoder(length=1)
    with pytest.raises(ValueError, match="'lookup'"):
        create_captioner(LOOKUPVIT, 9, {**LOOKUPVIT_ARGUMENTS, "classifiers": "lookup"})


@pytest.mark.parametrize("name", ENCODERS)
def test_the_memory_holds_the_tokens_that_the_classifier_pools(name):
    arguments, num_tokens = ENCODERS[name]
    classifier = perturb(lookupvivit.create_model(name, 5, **arguments))
    image, classifier_inputs = torch.randn(2, 3, 16, 16), []
    head = getattr(classifier, "compressed_head", None) or classifier.head
    head.register_forward_pre_hook(lambda _, inputs: classifier_inputs.append(inputs[0]))
    classifier(image)
    memory = Captioner(classifier, 9, **SMALL_DECODER).memory(image)
    assert memory.shape == (2, num_tokens, 16)
    torch.testing.assert_close(memory.mean(dim=1), classifier_inputs[0])


@pytest.mark.parametrize("name", ENCODERS)
def test_training_changes_the_decoder_and_leaves_the_encoder_bit_identical(name):
    encoder = perturb(lookupvivit.create_model(name, 5, **ENCODERS[name][0]))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    model = Captioner(encoder, 9, **SMALL_DECODER).train()
    assert not model.encoder.training and model.decoder.training
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):  # gradients pass the output layer, which starts at zero, only from the second step on
        optimizer.zero_grad()
        tokens = torch.randint(3, 9, (2, 7))
        model(torch.randn(2, 3, 16, 16), tokens).logits.log_softmax(-1)[..., 3].sum().backward()
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.encoder.state_dict().items())
    for key, parameter in model.named_parameters():
        assert (parameter.grad is None) == key.startswith("encoder."), key
        has_no_effect = key.endswith("cross.k.bias")  # softmax ignores a shift that all keys share
        assert parameter.grad is None or parameter.grad.abs().sum() > 0 or has_no_effect, key


def test_layer_groups_contain_every_parameter_once():
    model = create_captioner("vit_ti16", 9, IMAGE, **SMALL_DECODER)
    groups = model.layer_groups()
    assert len(groups) == SMALL_DECODER["depth"] + 2
    assert sorted(key for group in groups for key in group) == sorted(dict(model.named_parameters()))


def test_memory_of_other_compressed_sizes_and_with_a_class_token():
    image = torch.randn(2, 3, 16, 16)
    model = create_captioner(LOOKUPVIT, 9, LOOKUPVIT_ARGUMENTS, **SMALL_DECODER).eval()
    assert model.memory(image, (1, 3, 4)).shape == (2, 12, 16)
    assert model(image, compressed_size=(1, 3, 4)).logits.shape == (2, 7, 9)
    with_class_token = create_captioner("vit_ti16", 9, {**IMAGE, "pooling": "token"}, **SMALL_DECODER)
    assert with_class_token.memory(image).shape == (2, 17, 16)
