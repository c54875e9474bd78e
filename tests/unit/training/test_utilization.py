"""Model FLOPs utilization against the counted cost of the trained clips."""

import math

import pytest
import torch

from lookupvivit.config.loading import load_config
from lookupvivit.models.registry import create_model
from lookupvivit.profiling import flops
from lookupvivit.profiling.flops import count_cost
from lookupvivit.training import utilization
from lookupvivit.training.build import build_model, build_on_meta
from lookupvivit.training.distributed import World
from lookupvivit.training.utilization import ModelFlopsUtilization, training_macs


def test_every_step_counts_at_its_compressed_size_and_each_size_is_counted_once(monkeypatch):
    config = load_config("configs/camera_motion.yaml")
    monkeypatch.setattr(utilization, "peak_flops", lambda device, dtype: (1e12, "data sheet"))
    counted = []

    def counting(model, shape, **call):
        counted.append(call)
        return count_cost(model, shape, **call)

    monkeypatch.setattr(utilization, "count_cost", counting)
    model = build_on_meta(lambda: build_model(config))
    mfu = ModelFlopsUtilization(model, config, World(0, 1, torch.device("cpu")))
    small = {"compressed_size": (2, 3, 3)}
    for call in ({}, small, {}, small):
        mfu.add(call, num_clips=5)

    data = config.data
    size = (data.frames, data.crop, data.crop)
    model = create_model(config.model.name, 10, input_size=size, **config.model.overrides)
    macs = count_cost(model, (1, 3, *size)).macs + count_cost(model, (1, 3, *size), **small).macs
    assert mfu.report(seconds=2.0) == pytest.approx(3 * 2 * 10 * macs / 2.0 / 1e12)
    assert mfu.report(seconds=2.0) == 0
    assert counted == [{}, small]


def test_an_operator_of_unknown_cost_is_named_once_and_the_share_is_unknown(monkeypatch, capsys):
    config = load_config("configs/camera_motion.yaml")
    monkeypatch.delitem(flops.ELEMENTWISE, "gelu")
    monkeypatch.setattr(utilization, "peak_flops", lambda device, dtype: (1e12, "data sheet"))
    mfu = ModelFlopsUtilization(build_on_meta(lambda: build_model(config)), config, World(0, 1, torch.device("cpu")))
    for call in ({}, {"compressed_size": (2, 3, 3)}, {}):
        mfu.add(call, num_clips=5)
    assert math.isnan(mfu.report(seconds=2.0))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("mfu: unknown; ") and "aten::gelu" in line


def test_frozen_modules_have_no_backward_pass():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 7))
    model[0].requires_grad_(False)
    assert training_macs(model, (2, 3)) == 2 * (3 * 5 + 3 * 5 * 7)
