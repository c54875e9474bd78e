"""Losses and soft targets, against torch's and by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

import lookupvivit
from lookupvivit.training.losses import class_weights, sigmoid_cross_entropy, smooth_one_hot, softmax_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_softmax_cross_entropy_equals_torch_label_smoothing(smoothing):
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(softmax_cross_entropy(logits, smooth_one_hot(labels, 4, smoothing)), expected)


def test_class_weights_agree_with_sklearn():
    labels = np.array([0, 0, 0, 1, 3, 3])
    weights = class_weights(labels, 5)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(weights, [expected[0], expected[1], 1, expected[2], 1], rtol=1e-6)
    logits, targets = torch.randn(6, 5), torch.from_numpy(labels)
    weighted = F.cross_entropy(logits, targets, weights, reduction="none").mean()
    torch.testing.assert_close(softmax_cross_entropy(logits, smooth_one_hot(targets, 5), weights), weighted)


@pytest.mark.parametrize("loss", [softmax_cross_entropy, sigmoid_cross_entropy])
def test_losses_are_computed_in_float32(loss):
    targets = smooth_one_hot(torch.tensor([0, 1]), 4)
    assert loss(torch.randn(2, 4).bfloat16(), targets).dtype == torch.float32


def test_sigmoid_cross_entropy_sums_over_classes():
    logits, labels = 5 * torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    one_hot, multi_label = F.one_hot(labels, 4).float(), torch.randint(2, (6, 4))
    mixed = 0.3 * one_hot + 0.7 * one_hot.flip(0)
    for targets in (one_hot, mixed, multi_label, smooth_one_hot(labels, 4, 0.2)):
        expected = 4 * F.binary_cross_entropy_with_logits(logits, targets.float())  # torch's mean is over classes too
        torch.testing.assert_close(sigmoid_cross_entropy(logits, targets), expected)


def test_sigmoid_cross_entropy_by_hand():
    # p = 1/2, 1/4 and 4/5; the first two classes are present: log 2 + log 4 + log 5
    loss = sigmoid_cross_entropy(torch.tensor([[0, -math.log(3), math.log(4)]]), torch.tensor([[1, 1, 0]]))
    assert float(loss) == pytest.approx(math.log(40))


def test_classifier_bias_sets_the_initial_probability_of_every_class():
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 1000, classifier_bias=-6.9)
    output, targets = model(torch.randn(2, 3, 8, 64, 64)), F.one_hot(torch.tensor([3, 7]), 1000)
    for name in ("compressed_logits", "lookup_logits"):  # without the bias, the loss starts at 1000 log 2 = 693
        assert sigmoid_cross_entropy(output[name], targets).item() == pytest.approx(
            math.log1p(math.exp(6.9)) + 999 * math.log1p(math.exp(-6.9)), rel=1e-4
        )
