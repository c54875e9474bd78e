"""The moving average of the weights."""

import torch

from lookupvivit.training.ema import AveragedSteps, decay_of_step


def test_the_wrapped_optimizer_initialises_its_own_state():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([{"params": [weight], "ema_decay": 0.5}], lr=0.1)
    AveragedSteps(optimizer)
    weight.grad = torch.ones(3)
    optimizer.step()
    expected = (1 + weight.detach()) / 2
    torch.testing.assert_close(optimizer.state[weight]["ema"], expected)
    assert optimizer.state[weight]["step"] == 1


def test_decay_ramp_is_that_of_tensorflow():
    assert [decay_of_step(step, 0.9999) for step in (0, 8, 90)] == [0.1, 0.5, 0.91]
    assert decay_of_step(10**6, 0.9999) == 0.9999
