"""Parts of the training loop that need no run."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config
from lookupvivit.training.attention_logging import spread_over_classes
from lookupvivit.training.build import build_model
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog, _remove_after
from lookupvivit.training.schedule import call_of_step, calls_of_steps
from lookupvivit.training.trackers import TrackedRun, create_trackers


def config(*overrides):
    return load_config("configs/camera_motion.yaml", overrides)


def test_one_compressed_size_per_step_for_all_ranks():
    """Drawn uniformly from the product of t and k, keyed on seed and step alone."""
    multi = config("model.multi_resolution={t: [4, 8], k: [2, 3, 5]}", "seed=3")
    drawn = [call_of_step(multi, step)["compressed_size"] for step in range(1200)]
    counts = Counter(drawn)
    assert counts.keys() == {(t, k, k) for t in (4, 8) for k in (2, 3, 5)}
    assert all(abs(count - 200) < 4 * 200**0.5 for count in counts.values())
    assert drawn[7:9] == [call_of_step(multi, step)["compressed_size"] for step in (7, 8)]
    other_seed = config("model.multi_resolution={t: [4, 8], k: [2, 3, 5]}", "seed=4")
    assert [call_of_step(other_seed, step)["compressed_size"] for step in range(20)] != drawn[:20]
    assert call_of_step(config(), 0) == {}


def test_one_share_of_kept_tokens_per_step_for_all_ranks():
    """Drawn uniformly, keyed on seed and step alone; the draws of the compressed size stay the same."""
    sizes = "model.multi_resolution={t: [4, 8], k: [2, 3, 5]}"
    varied, without = config(sizes, "model.keep=[0.3, 1.0]", "seed=3"), config(sizes, "seed=3")
    drawn = [call_of_step(varied, step) for step in range(1500)]
    shares = Counter(round(call.pop("keep", 1.0), 6) for call in drawn)
    assert sorted(shares) == [round(0.3 + 0.05 * i, 6) for i in range(15)]
    assert all(abs(count - 100) < 4 * 100**0.5 for count in shares.values())
    assert drawn == [call_of_step(without, step) for step in range(1500)]
    assert call_of_step(varied, 70) == call_of_step(varied, 70)
    assert call_of_step(config("model.keep=[0.5, 0.5]"), 0) == {"keep": 0.5}
    calls = calls_of_steps(varied)
    assert len(calls) == 6 * 15 and calls[-1] == {"compressed_size": (8, 5, 5)}
    assert all(call_of_step(varied, step) in calls for step in range(50))


@pytest.mark.parametrize("name", ["tokenlearner_pico8x2_at2", "perceiver_pico8x2"])
@pytest.mark.parametrize("setting", ["model.keep=[0.3, 1.0]", "eval.keep=0.5", "eval.keep=motion:0.5"])
def test_models_that_need_all_of_their_tokens_are_named(name, setting):
    with pytest.raises(ConfigError, match=rf"{setting.partition('=')[0]}: found .* needs all of its tokens"):
        build_model(config(f"model.name={name}", "model.overrides={}", setting))


@pytest.mark.parametrize("override", ["model.name=vivit_pico8x2", "model.overrides.compressed_init=random"])
@pytest.mark.parametrize("setting", ["model.multi_resolution={t: [4], k: [2]}", "eval.compressed_size=[4,2,2]"])
def test_a_fixed_compressed_size_cannot_be_changed(override, setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        build_model(config(override, setting))


def test_resuming_removes_later_records_and_damaged_lines(tmp_path):
    file = tmp_path / "log.jsonl"
    records = [(1, "train"), (2, "train"), (2, "val"), (3, "train"), (3, "val"), (4, "train")]
    damaged = '\0\0\0{"step": 1, "kind": "val"}\n5\n{"step": null, "kind": "val"}\n{"kind": "val"}\nx\n'
    lines = "".join(json.dumps({"step": s, "kind": k}) + "\n" for s, k in records)
    file.write_text(damaged + lines + '{"step": 3, "lo')
    assert [tuple(record.values()) for record in _remove_after(file, 3)] == records[:5]
    kept = [tuple(json.loads(line).values()) for line in file.read_text().splitlines()]
    assert kept == records[:5]


def tensorboard_tags(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return set(EventAccumulator(str(run / "tensorboard")).Reload().Tags()["scalars"])


def test_a_validation_is_in_tensorboard_before_it_is_in_the_log(tmp_path, monkeypatch):
    """A run that is killed after either does not lose it: what the log does not have is repeated."""
    trackers = create_trackers(["tensorboard"], TrackedRun(tmp_path, "", {}, "top1", 0))
    log = RunLog(tmp_path, 0, 10, World(0, 1, torch.device("cpu")), trackers)
    seen = []
    monkeypatch.setattr(log, "_write", lambda step, kind, **values: seen.append((kind, tensorboard_tags(tmp_path))))
    log.scalars(5, "train", loss=1.0)
    log.scalars(5, "val", top1=50.0)
    log.close()
    assert seen[-1] == ("val", {"train/loss", "val/top1"})


def test_drawn_clips_are_spread_over_the_classes():
    labels = np.repeat(np.arange(5), 4)  # four clips of each class, class by class
    assert spread_over_classes(labels, 5) == [0, 4, 8, 12, 16]
    assert spread_over_classes(labels, 3) == [0, 8, 16]
    assert spread_over_classes(np.zeros(3, int), 8) == [0, 1, 2]  # fewer clips than asked for
    assert spread_over_classes(np.array([0, 0, 1]), 3) == [0, 2, 1]  # second clips after all first ones
