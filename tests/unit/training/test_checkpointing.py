"""Saving a checkpoint: what an error says, and what it leaves."""

import errno
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from support.image_models import small_model

import lookupvivit
from lookupvivit.config.loading import load_config
from lookupvivit.training import checkpointing, whole_tensors
from lookupvivit.training.distributed import World

WORLD = World(0, 1, torch.device("cpu"))


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Save a checkpoint of a model without trainable weights."""
    model = lookupvivit.load_model(small_model(tmp_path / "source", ["a", "b"]))
    description = json.loads((tmp_path / "source" / "model.json").read_text())
    engine = SimpleNamespace(
        module=model.requires_grad_(False), frozen_weights=model.state_dict(), save_checkpoint=lambda *_, **__: None
    )
    monkeypatch.setattr(whole_tensors, "ensure_optimizer_state", lambda engine: None)
    monkeypatch.setattr(whole_tensors, "save_moments", lambda engine, file, is_main: None)
    config = load_config("configs/camera_motion.yaml", ["log.keep_checkpoints=1"])

    def save(step):
        described = {**description, "run": "a", "training": {"ema_decay": 0}}
        checkpointing.save(engine, tmp_path / "run", step, described, config, WORLD)
        return tmp_path / "run" / "checkpoints" / f"step_{step:08d}"

    return save


def test_an_old_checkpoint_that_cannot_be_removed_is_no_error(save, monkeypatch, capsys):
    old, rmtree = save(1), shutil.rmtree

    def fail(path, *arguments, **options):
        if str(path).endswith("step_00000001"):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        rmtree(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", fail)
    assert (save(2) / "state.json").is_file()
    assert f"old checkpoint {old} cannot be removed (Stale file handle)" in capsys.readouterr().out


def test_an_error_after_the_checkpoint_is_written_does_not_name_the_checkpoint(save, monkeypatch):
    def fail(file, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    checkpoint = save(1)
    monkeypatch.setattr(checkpointing, "write_text", fail)
    with pytest.raises(OSError, match=r"No space left") as raised:
        save(2)
    assert str(raised.value).startswith(f"{checkpoint.parents[1] / 'config.yaml'}: cannot be written (")
    assert checkpoint.with_name("step_00000002").is_dir()
