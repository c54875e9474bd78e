"""What a start removes from a run directory, and which model.json files are of the same run."""

import errno
import json
import os

import pytest
import torch
from support.image_models import small_model

from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config, to_yaml
from lookupvivit.training.checkpointing import require_same_run
from lookupvivit.training.distributed import World, exclusive
from lookupvivit.training.run_directory import belongs, remove_leftovers, resume_constraints, set_aside


def write(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("content")


def test_only_leftovers_of_the_run_are_removed(tmp_path):
    run = tmp_path / "run"
    small_model(run / "best", ["a", "b"])
    leftovers = [
        run / "checkpoints" / ".step_00000006" / "state.json",
        run / ".best" / "model.safetensors",
        run / ".publishing-a" / "model.safetensors",
        run / ".writing-a" / "log.jsonl",
        run / ".writing-b" / "config.yaml",
        run / "best" / ".writing-c" / "model.safetensors",
        run / ".seen_by_all_1",
    ]
    kept = [
        run / ".writing-d" / "predictions.npz",  # of a program that may be running
        run / ".writing-e" / "report.json",
        run / "checkpoints" / "step_00000003" / "state.json",
        run / ".lock",
    ]
    write(*leftovers, *kept)
    (run / ".writing-f").mkdir()  # whose nobody knows
    remove_leftovers(run)
    remaining = {file for file in run.rglob("*") if file.is_file()}
    assert remaining == {*kept, run / "best" / "model.json", run / "best" / "model.safetensors"}
    assert {path.name for path in run.glob(".*")} == {".writing-d", ".writing-e", ".writing-f", ".lock"}


def test_a_run_named_best_keeps_its_temporary_folders(tmp_path):
    inner = small_model(tmp_path / "best", ["a", "b"])
    write(inner / "log.jsonl", inner / ".writing-a" / "log.jsonl")
    remove_leftovers(tmp_path)
    assert (inner / ".writing-a" / "log.jsonl").is_file()


def test_what_a_link_leads_to_is_not_removed(tmp_path):
    write(tmp_path / "elsewhere" / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".publishing-x").symlink_to(tmp_path / "elsewhere")
    remove_leftovers(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir()) and (tmp_path / "elsewhere" / "file").is_file()


def test_checkpoints_on_another_disk_are_set_aside(tmp_path, monkeypatch):
    write(tmp_path / "disk" / "step_00000003" / "shards" / "state.json")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")

    def rename(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "replace", rename)
    folder = set_aside([tmp_path / "run" / "checkpoints" / "step_00000003"], tmp_path / "run")
    assert (folder / "step_00000003" / "shards" / "state.json").read_text() == "content"
    assert not list((tmp_path / "disk").iterdir())


@pytest.mark.parametrize("is_old", [False, True])
def test_the_number_of_repeats_cannot_change(tmp_path, is_old):
    """Checkpoints of version 0.1 do not contain it; the config.yaml of their run does."""
    run = tmp_path / "run"
    checkpoint = small_model(run / "checkpoints" / "step_00000003", ["a", "b"])
    file = checkpoint / "model.json"
    config = load_config("configs/camera_motion.yaml", ["data.repeats=2"])
    description = json.loads(file.read_text()) | {"run": "a", "training": resume_constraints(config, 40)}
    saved = description | {"training": dict(description["training"])}
    if is_old:
        del saved["training"]["repeats"], saved["run"]
        saved["training"]["videos"] = saved["training"].pop("num_videos")
    file.write_text(json.dumps(saved))
    (run if is_old else checkpoint).joinpath("config.yaml").write_text(to_yaml(config))
    require_same_run(checkpoint, run, description)
    assert belongs(checkpoint, description)
    for key, value, change in (("repeats", 1, "data.repeats: 2 -> 1"), ("num_videos", 41, "num_videos: 40 -> 41")):
        changed = description | {"training": description["training"] | {key: value}}
        with pytest.raises(ConfigError, match=f": {change}; set another output_dir"):
            require_same_run(checkpoint, run, changed)


def test_a_full_disk_is_reported_with_its_free_space(tmp_path, monkeypatch):
    def write(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("data_pipelines.io.lock._write", write)
    with (
        pytest.raises(ConfigError, match=r"^output_dir: .*\.lock'; \d+\.\d GB are free there$"),
        exclusive(tmp_path / ".lock", "output_dir", World(0, 1, torch.device("cpu"))),
    ):
        pass
