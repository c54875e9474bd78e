"""Training with a teacher under DeepSpeed: the run continues as if it had not been interrupted."""

import shutil

import pytest
import torch
from support.runs import assert_same_weights, log_records

from lookupvivit.config.loading import load_config
from lookupvivit.training.build import build_model, classifier_description
from lookupvivit.weights.files import load_model, save_model

SELF = ("model.multi_resolution={t: [1, 2], k: [1, 3]}", "distill.teacher=self", "runtime.zero_stage=3")
OTHER = ("distill={teacher: TEACHER, targets: logits, compressed_size: 1x1x1}", "runtime.precision=bf16")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SELF, OTHER], ids=["self, ZeRO-3", "another model, bf16"])
def test_resumed_runs_equal_uninterrupted_ones(tmp_path, command, shell, settings):
    config = load_config("configs/camera_motion.yaml", ["data.frames=8"])
    torch.manual_seed(1)
    teacher = build_model(config)
    torch.nn.init.normal_(teacher.compressed_head.weight)
    description = classifier_description(config, ())
    del description["class_names"]  # as of a file from elsewhere
    save_model(tmp_path / "teacher", teacher.state_dict(), description)
    settings = [setting.replace("TEACHER", str(tmp_path / "teacher")) for setting in settings]
    every = ("log.checkpoint_every_epochs=0.2", "log.keep_checkpoints=9", "log.attention_every_epochs=0")
    run, whole = tmp_path / "run", tmp_path / "whole"
    arguments = command("train_net.py", run, *every, *settings, "optim.max_steps=4")
    output = shell(arguments)
    assert ("distill.teacher" in output) == (settings[0].startswith("distill"))
    shutil.copytree(run, whole)
    load_model(run)  # refuses tensors that are not of the model
    for step in (3, 4):
        shutil.rmtree(run / "checkpoints" / f"step_{step:08d}")
    assert "resuming from step 2 of 4" in shell(arguments)
    assert_same_weights(run, whole)
    again, before = log_records(run), log_records(whole)
    assert [r["distill_loss"] for r in again] == [r["distill_loss"] for r in before]
    assert [r["loss"] for r in again] == [r["loss"] for r in before] and any(r["distill_loss"] > 0 for r in before)
