"""The learning rate schedule, parameter groups, and the guard against non-finite gradients."""

import pytest
import torch
from torch import nn

import lookupvivit
from lookupvivit.config import OptimConfig
from lookupvivit.training.optimizer import (
    FiniteSteps,
    NonFiniteGradients,
    build_optimizer,
    learning_rate,
    parameter_groups,
)


def test_learning_rate_values():
    rates = [learning_rate(step, total_steps=8, warmup_steps=4, base=1.0) for step in range(8)]
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert learning_rate(100_680, 100_680, 8_390, 0.1) == pytest.approx(0)
    assert learning_rate(8_390, 100_680, 8_390, 0.1) == pytest.approx(0.1)  # ViViT's K400 run, at the warmup's end
    assert learning_rate(0, 10, 0, 0.3) == 0.3
    assert learning_rate(2, 3, 8_390, 0.1) == pytest.approx(0.1 * 2 / 8_390)  # a run that ends during the warmup


def test_weight_decay_applies_to_kernels_only():
    model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 10)
    optimizer = build_optimizer(model, OptimConfig(name="adamw", weight_decay=0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    exempt = {names[id(p)] for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert decayed | exempt == set(names.values())
    assert "positions" in exempt
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert all(name == "positions" or name.endswith("bias") or "norm" in name for name in exempt)


@pytest.mark.parametrize("name", ["lookupvivit_b16x2_9x9x8", "vit_ti16", "tokenlearner_ti16_at6", "perceiver_pico8x2"])
def test_layer_decay_follows_the_depth_with_few_groups(name):
    small = {"width": 24, "depth": 5, "num_heads": 2} | ({"learn_at": 2} if "learner" in name else {})
    model = lookupvivit.create_model(name, 4, **small)
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    assert len(groups) <= 2 * (5 + 2)
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, model.parameters()))
    settings = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    exempt = model.no_weight_decay()
    for depth, names in enumerate(model.layer_groups()):
        for key in names:
            parameter = model.get_parameter(key)
            decays = parameter.dim() >= 2 and key not in exempt
            assert settings[id(parameter)] == (0.5 ** (6 - depth), 0.1 if decays else 0.0)
    assert len(parameter_groups(model, 0.1)) == 2
    assert len(build_optimizer(model, OptimConfig(layer_decay=0.9)).param_groups) <= 14


def test_non_finite_gradients_are_skipped_and_counted_or_raise():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    guard = FiniteSteps(optimizer, lambda flag: flag, skip=True)
    for gradient, expected in ((1.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0), (2.0, -2.0)):
        weight.grad = torch.tensor([1.0, gradient, 1.0])
        optimizer.step()
        assert weight[1] == expected
    assert guard.skipped == 2
    FiniteSteps(optimizer, lambda flag: True, skip=False)  # another rank has non-finite gradients
    with pytest.raises(NonFiniteGradients):
        optimizer.step()
    assert weight[1] == -2.0
