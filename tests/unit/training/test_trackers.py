"""Trackers: what arrives in TensorBoard, Weights & Biases and MLflow, also after a resume."""

import numpy as np
import pytest
import torch

from lookupvivit.config import ConfigError
from lookupvivit.training import trackers
from lookupvivit.training.distributed import World
from lookupvivit.training.logging import RunLog
from lookupvivit.training.trackers import TrackedRun, create_trackers, require_installed

SETTINGS = {"seed": 0, "optim": {"lr": 0.1, "name": "adamw"}, "log": {"trackers": ["tensorboard"]}, "init_from": None}
FLAT = {"seed": 0, "optim.lr": 0.1, "optim.name": "adamw", "log.trackers": "['tensorboard']", "init_from": "None"}
IMAGE = np.full((4, 6, 3), 128, np.uint8)


def track(name, tmp_path, step, **values):
    """Log one step of the same run."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(exist_ok=True)
    (tracker,) = create_trackers([name], TrackedRun(run_dir, "0123abcd", SETTINGS, "top1", step - 1))
    tracker.scalars(step, values)
    tracker.image(step, "attention/0_clip", IMAGE)
    tracker.flush()
    tracker.close()
    return run_dir


def test_tensorboard_has_curves_images_and_settings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    track("tensorboard", tmp_path, 1, **{"train/loss": 2.0})
    board = EventAccumulator(str(track("tensorboard", tmp_path, 2, **{"train/loss": 1.0}) / "tensorboard")).Reload()
    assert [(point.step, point.value) for point in board.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]
    assert board.Images("attention/0_clip")[0].width == 6
    (text,) = board.Tensors("config/text_summary")[0].tensor_proto.string_val
    assert b"optim:\n  lr: 0.1\n" in text
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: value.string_value or value.number_value for name, value in session.items()} == FLAT


@pytest.mark.parametrize("project", [None, "mine"])
def test_wandb_continues_its_run(tmp_path, monkeypatch, project):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if project:
        monkeypatch.setenv("WANDB_PROJECT", project)
    seen = {}
    finish = wandb.Run.finish

    def end(run):
        seen.update(dict(run.summary), project=run.project)
        finish(run)

    monkeypatch.setattr(wandb.Run, "finish", end)
    for step, loss in ((1, 2.0), (2, 1.0)):
        run_dir = track("wandb", tmp_path, step, **{"train/loss": loss})
        assert seen["train/loss"] == loss and seen["step"] == step and seen["project"] == (project or "lookupvivit")
    assert list(run_dir.glob("wandb/offline-run-*-0123abcd/run-0123abcd.wandb"))


def test_mlflow_continues_its_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "records").as_uri())
    track("mlflow", tmp_path, 1, **{"train/loss": 2.0})
    track("mlflow", tmp_path, 2, **{"train/loss": 1.0})
    (run,) = mlflow.search_runs(experiment_names=["lookupvivit"], output_format="list")
    assert run.info.run_name == "run" and run.data.params == {name: str(value) for name, value in FLAT.items()}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]


class Failing:
    """A tracker whose server ends at step 2."""

    def __init__(self, run=None):
        self.seen = []

    def scalars(self, step, values):
        if step == 2:
            raise ConnectionError("no server\nat all")
        self.seen.append((step, values))

    def close(self):
        raise AssertionError("not used any more")


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, capsys):
    failing = Failing()
    log = RunLog(tmp_path, 0, 3, World(0, 1, torch.device("cpu")), [failing])
    for step in (1, 2, 3):
        log.scalars(step, "train", loss=1.0)
    log.close()
    assert failing.seen == [(1, {"train/loss": 1.0})] and len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert "NOTE log.trackers: Failing is not used any more: no server\n" in capsys.readouterr().out


def test_a_tracker_that_cannot_start_is_one_line(tmp_path, monkeypatch):
    def start(run):
        raise RuntimeError("log in first\nwith a key")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", start)
    with pytest.raises(ConfigError, match=r"^log\.trackers: wandb cannot start: log in first$"):
        create_trackers(["wandb"], TrackedRun(tmp_path, "", {}, "top1", 0))


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^log\.trackers: found 'wandb', .*pip install wandb"):
        require_installed(("wandb",))
