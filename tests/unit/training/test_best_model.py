"""best/ and the published model: complete at every instant, and only those of the run itself."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.image_models import PREPROCESSING, small_model

import lookupvivit
from lookupvivit.config import ConfigError
from lookupvivit.training import checkpointing
from lookupvivit.training.distributed import World
from lookupvivit.training.run_directory import BEST, claim

WORLD = World(0, 1, torch.device("cpu"))


@pytest.fixture
def engine(tmp_path):
    model = lookupvivit.load_model(small_model(tmp_path / "source", ["a", "b"]))
    description = json.loads((tmp_path / "source" / "model.json").read_text()) | {"training": {"ema_decay": 0}}
    return SimpleNamespace(
        module=model.requires_grad_(False), frozen_weights=model.state_dict(), described={**description, "run": "a"}
    )


def save(engine, run, step, score, identity="a"):
    checkpointing.save_best(engine, run, step, {**engine.described, "run": identity}, "top1", score, WORLD)


def test_a_complete_best_model_exists_at_every_instant(tmp_path, engine, monkeypatch):
    steps = []

    def look():
        lookupvivit.load_model(tmp_path / BEST)
        steps.append(json.loads((tmp_path / BEST / "model.json").read_text())["step"])

    def watched(function):
        def call(*arguments, **options):
            if (tmp_path / BEST).exists():
                look()
            result = function(*arguments, **options)
            if (tmp_path / BEST).exists():
                look()
            return result

        return call

    for module, name in ((os, "replace"), (os, "rename"), (os, "unlink"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    for step, score in ((1, 10.0), (2, 5.0), (3, 20.0)):
        save(engine, tmp_path, step, score)
    assert set(steps) == {1, 3} and steps == sorted(steps)
    assert not (tmp_path / ".best").exists() and sorted(os.listdir(tmp_path / BEST)) == [
        "model.json",
        "model.safetensors",
    ]


def test_a_crash_leaves_no_description_of_other_weights(tmp_path, engine, monkeypatch):
    """The weights are replaced first, and the validation that is repeated after the crash replaces the description."""
    save(engine, tmp_path, 1, 10.0)
    replace, replaced = os.replace, []

    def crash(old, new):
        if len(replaced) == 1:
            raise KeyboardInterrupt
        if os.path.dirname(new) == str(tmp_path / BEST):
            replaced.append(os.path.basename(new))
        return replace(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", crash)
        save(engine, tmp_path, 2, 20.0)
    assert replaced == ["model.safetensors"]
    assert json.loads((tmp_path / BEST / "model.json").read_text())["validation_top1"] == 10
    save(engine, tmp_path, 2, 20.0)
    assert json.loads((tmp_path / BEST / "model.json").read_text())["validation_top1"] == 20


def test_the_best_model_of_an_earlier_run_is_set_aside(tmp_path, engine):
    save(engine, tmp_path, 9, 99.0, identity="earlier")
    (tmp_path / "log.jsonl").write_text("log\n")
    identity = claim(tmp_path, None, engine.described, WORLD)
    assert not (tmp_path / BEST).exists() and (tmp_path / "set_aside_1" / "log.jsonl").read_text() == "log\n"
    assert json.loads((tmp_path / "set_aside_1" / BEST / "model.json").read_text())["step"] == 9
    assert json.loads((tmp_path / "run.json").read_text()) == {"run": identity}
    save(engine, tmp_path, 1, 1.0, identity)
    assert json.loads((tmp_path / BEST / "model.json").read_text())["step"] == 1


def test_failed_videos_of_an_earlier_run_do_not_count(tmp_path, engine):
    """Not even where it wrote no model."""
    for name in ("failed_videos.txt", "broken_videos.txt"):
        (tmp_path / name).write_text("a.mp4: cannot be decoded; x\n")
    claim(tmp_path, None, engine.described, WORLD)
    assert {path.name for path in tmp_path.glob("*.txt")} == set()
    assert (tmp_path / "set_aside_1" / "broken_videos.txt").is_file()


def test_files_of_others_are_set_aside(tmp_path, engine):
    """Such as the configuration that a user has written into the run directory; but not those of a killed run."""
    theirs = {"config.yaml": "# comments\n", "log.jsonl": '{"step": 1, "kind": "of theirs"}\n', "run.json": "[]\n"}
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    for name, content in theirs.items():
        (run / name).write_text(content)
    claim(run, None, engine.described, WORLD)
    assert {file.name: file.read_text() for file in (run / "set_aside_1").iterdir()} == theirs
    for name in ("config.yaml", "log.jsonl"):  # of the run, which a kill ends before its first checkpoint
        (run / name).write_text("")
    claim(run, None, engine.described, WORLD)
    assert {path.name for path in run.iterdir()} == {*theirs, "tensorboard", "set_aside_1"}


def test_results_of_an_earlier_run_are_set_aside(tmp_path, engine):
    save(engine, tmp_path, 9, 99.0, identity="earlier")
    files = [Path(name) / "file" for name in ("attention", "predictions", "tensorboard")]
    for file in files:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("earlier")
    claim(tmp_path, None, engine.described, WORLD)
    assert not any((tmp_path / file).exists() for file in files)
    assert all((tmp_path / "set_aside_1" / file).is_file() for file in files)


@pytest.mark.parametrize("content", ["", "{", "[]", "\0\0\0"])
def test_a_damaged_best_model_is_set_aside(tmp_path, engine, capsys, content):
    save(engine, tmp_path, 1, 10.0)
    (tmp_path / BEST / "model.json").write_text(content)
    save(engine, tmp_path, 2, 5.0)
    assert json.loads((tmp_path / BEST / "model.json").read_text())["step"] == 2
    assert (tmp_path / "set_aside_1" / BEST / "model.json").read_text() == content
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(str(tmp_path / BEST / "model.json")) and line.endswith(str(tmp_path / "set_aside_1"))


def test_a_run_named_best_is_not_touched(tmp_path, engine, capsys):
    small_model(tmp_path / BEST, ["a", "b"])
    (tmp_path / BEST / "config.yaml").write_text("theirs")
    before = {file: file.read_bytes() for file in (tmp_path / BEST).rglob("*") if file.is_file()}
    with pytest.raises(ConfigError, match=f"output_dir: {tmp_path / BEST} is not the best model"):
        claim(tmp_path, None, engine.described, WORLD)
    save(engine, tmp_path, 1, 99.0)  # it appeared later
    assert f"{tmp_path / BEST} is not of this run" in capsys.readouterr().out
    assert before == {file: file.read_bytes() for file in (tmp_path / BEST).rglob("*") if file.is_file()}


def test_a_published_model_of_another_run_is_set_aside(tmp_path, engine):
    """Such as the one that a run starts from, in its own directory."""
    checkpoint = small_model(tmp_path / "checkpoints" / "step_1", ["a", "b"], seed=1)
    small_model(tmp_path, ["c", "d"], seed=2)
    theirs = (tmp_path / "model.safetensors").read_bytes()
    checkpointing.publish(checkpoint, tmp_path, engine.described)
    assert (tmp_path / "set_aside_1" / "model.safetensors").read_bytes() == theirs
    assert (tmp_path / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def test_files_of_version_0_1_belong_to_a_run_with_the_same_settings(tmp_path, engine):
    without = {key: value for key, value in engine.described.items() if key != "run"}
    checkpointing.save_best(engine, tmp_path, 1, {**without}, "top1", 10.0, WORLD)
    checkpoint = tmp_path / "checkpoints" / "step_1"
    shutil.copytree(tmp_path / BEST, checkpoint)
    identity = claim(tmp_path, checkpoint, without, WORLD)
    assert (tmp_path / BEST).is_dir()
    save(engine, tmp_path, 2, 5.0, identity)
    assert json.loads((tmp_path / BEST / "model.json").read_text())["step"] == 1
    save(engine, tmp_path, 2, 20.0, identity)
    assert json.loads((tmp_path / BEST / "model.json").read_text())["run"] == identity
    other = {**without, "preprocessing": {**PREPROCESSING, "crop": 8}}
    claim(tmp_path, None, other, WORLD)
    assert not (tmp_path / BEST).exists()
