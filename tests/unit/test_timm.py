"""The image models behave as timm's own do."""

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

import lookupvivit
import lookupvivit.timm

NAME, SMALL = "lookupvit_ti16_5x5", {"depth": 4, "num_classes": 7}


@pytest.fixture
def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def made(**arguments):
    torch.manual_seed(0)
    model = timm.create_model(NAME, **{**SMALL, **arguments})
    for head in model.get_classifier():
        if hasattr(head, "weight"):
            torch.nn.init.normal_(head.weight)
    return model.eval()


def test_every_image_model_is_registered():
    names = [name for name in lookupvivit.list_models() if name.startswith("lookupvit_")]
    assert sorted(timm.list_models("lookupvit*")) == names
    assert timm.is_model(NAME) and not timm.list_pretrained("lookupvit*")


def test_it_is_the_same_network_with_the_same_weights(image):
    ours = lookupvivit.create_model(NAME, 7, depth=4).eval()
    theirs = made()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(theirs(image), ours(image).logits, rtol=1e-5, atol=1e-6)
    features = theirs.forward_features(image)
    assert features.shape == (2, 25 + 4 * 6, theirs.num_features)
    assert theirs.num_prefix_tokens == 25
    assert theirs.forward_head(features, pre_logits=True).shape == (2, theirs.head_hidden_size)
    torch.testing.assert_close(theirs.forward_head(features), theirs(image))


def test_arguments_of_timm(image):
    model = made(img_size=(64, 96), drop_path_rate=0.3, drop_rate=0.5, compressed_size=(2, 3))
    assert model.positions.shape == (1, 1, 4, 6, 192) and model.num_prefix_tokens == 6
    assert model.blocks[-1].drop_path.rate == 0.3
    assert not torch.equal(model.train()(image), model(image))
    headless = made(num_classes=0)
    assert headless(image).shape == (2, headless.head_hidden_size)
    headless.reset_classifier(3)
    assert headless(image).shape == (2, 3)
    for wrong, words in (
        ({"in_chans": 1}, "in_chans"),
        ({"global_pool": "token"}, "global_pool"),
        ({"heads": "lookup"}, "create_model"),
        ({"pretrained": True}, "nobody has published"),
    ):
        with pytest.raises(ValueError, match=words):
            made(**wrong)


def test_intermediates_are_those_of_the_network(image):
    model = made()
    final, found = model.forward_intermediates(image, indices=[1, 3], norm=True, return_prefix_tokens=True)
    torch.testing.assert_close(final, model.forward_features(image))
    lookup, compressed = found[-1]
    torch.testing.assert_close(torch.cat([compressed, lookup.flatten(2).mT], dim=1), final)
    early = model.forward_intermediates(image, indices=[1], norm=True, stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], found[0][0])
    rows = model.forward_intermediates(image, indices=1, output_fmt="NLC", intermediates_only=True)
    assert len(rows) == 1 and rows[0].shape == (2, 24, 192)
    assert len(model.blocks) == 4


def test_features_only(image):
    net = timm.create_model(NAME, depth=4, features_only=True, out_indices=(0, 2))
    assert [feature.shape for feature in net(image)] == [(2, 192, 4, 6)] * 2
    assert net.feature_info.channels() == [192, 192] and net.feature_info.reduction() == [16, 16]
    assert len(net.model.blocks) == 3


def test_layer_decay_follows_the_depth():
    model = made()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    depth = {name: place for place, names in enumerate(model.layer_groups()) for name in names}
    for name, parameter in model.named_parameters():
        assert scale[id(parameter)] == 0.5 ** (5 - depth[name]), name
    undecayed = {id(p) for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert id(model.positions) in undecayed
