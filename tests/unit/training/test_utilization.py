import pytest
import torch

from lookupvivit.config.loading import load_config
from lookupvivit.models.registry import create_model
from lookupvivit.profiling.flops import count
from lookupvivit.training import utilization
from lookupvivit.training.build import build_model, build_on_meta
from lookupvivit.training.distributed import World


def test_mfu_counts_every_step_at_its_own_size_and_each_size_once(monkeypatch):
    config = load_config("configs/camera_motion.yaml")
    monkeypatch.setattr(utilization, "peak", lambda device, dtype: (1e12, "data sheet"))
    counted = []
    right = utilization.count_from_shapes
    monkeypatch.setattr(utilization, "count_from_shapes", lambda *a, **call: counted.append(call) or right(*a, **call))
    found = utilization.Utilisation(
        build_on_meta(lambda: build_model(config)), config, World(0, 1, torch.device("cpu"))
    )
    small = {"compressed_size": (2, 3, 3)}
    for call in ({}, small, {}, small):
        found.note(call, clips=5)
    data = config.data
    size = (data.frames, data.crop, data.crop)
    model = create_model(config.model.name, 10, input_size=size, **config.model.overrides)
    shape = (1, 3, *size)
    flops = 3 * 2 * 10 * (count(model, shape).macs + count(model, shape, **small).macs)
    assert found.report(seconds=2.0) == pytest.approx(flops / 2 / 1e12)
    assert found.report(seconds=2.0) == 0 and counted == [{}, small]
