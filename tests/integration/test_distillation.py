"""Training with a teacher under DeepSpeed."""

import shutil

import pytest
import torch
from support.runs import assert_same_weights, log_records

from lookupvivit.config.loading import load_config
from lookupvivit.training.build import build_model, classifier_description
from lookupvivit.weights.files import load_model, save_model

EVERY_STEP = ("log.checkpoint_every_epochs=0.2", "log.keep_checkpoints=9", "log.attention_every_epochs=0")


@pytest.mark.slow
def test_the_largest_size_teaches_under_zero_3(tmp_path, command, shell):
    sizes = "model.multi_resolution={t: [1, 2], k: [1, 3]}"
    run, settings = tmp_path / "run", (sizes, "distill.teacher=self", "runtime.zero_stage=3", "optim.max_steps=4")
    shell(command("train_net.py", run, "log.attention_every_epochs=0", *settings))
    load_model(run)  # refuses tensors that are not of the model
    assert any(record["distill_loss"] > 0 for record in log_records(run))


@pytest.mark.slow
def test_a_run_with_a_teacher_resumes_as_if_it_had_not_been_interrupted(tmp_path, command, shell):
    config = load_config("configs/camera_motion.yaml", ["data.frames=8"])
    torch.manual_seed(1)
    teacher = build_model(config)
    torch.nn.init.normal_(teacher.compressed_head.weight)
    description = classifier_description(config, ())
    del description["class_names"]  # as of a file from elsewhere
    save_model(tmp_path / "teacher", teacher.state_dict(), description)
    distill = f"distill={{teacher: {tmp_path / 'teacher'}, compressed_size: 1x1x1}}"
    run, whole = tmp_path / "run", tmp_path / "whole"
    arguments = command("train_net.py", run, *EVERY_STEP, distill, "runtime.precision=bf16", "optim.max_steps=4")
    assert f"distill.teacher {tmp_path / 'teacher'}: LookupViT, trained here" in shell(arguments)
    load_model(run)
    shutil.copytree(run, whole)
    for step in (3, 4):
        shutil.rmtree(run / "checkpoints" / f"step_{step:08d}")
    assert "resuming from step 2 of 4" in shell(arguments)
    assert_same_weights(run, whole)
    again, before = log_records(run), log_records(whole)
    for key in ("loss", "distill_loss"):
        assert [record[key] for record in again] == [record[key] for record in before]
