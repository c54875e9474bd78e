"""What a run keeps, replaces and changes when it is started again."""

import json
import shutil
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.runs import assert_same_weights, log_records, with_fault

from lookupvivit.config.loading import load_config
from lookupvivit.training.checkpoint_folders import file_hashes
from lookupvivit.training.optimizer import learning_rate
from lookupvivit.weights.files import load_model

EVERY_STEP = ("log.checkpoint_every_epochs=0.2", "log.validate_every_epochs=0", "log.attention_every_epochs=0")
TRACER = """
import os, runpy, shutil, sys
events = open({events!r}, "a")
def traced(module, name, describe):
    function = getattr(module, name)
    def call(*arguments, **options):
        events.write("\\t".join([name, *describe(*arguments)]) + "\\n")
        return function(*arguments, **options)
    setattr(module, name, call)
traced(os, "fsync", lambda descriptor: [os.readlink(f"/proc/self/fd/{{descriptor}}")])
traced(os, "replace", lambda old, new: [str(old), str(new)])
traced(shutil, "rmtree", lambda path, *rest, **options: [str(path)])
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
events.close()
"""


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.is_dir())


def test_a_damaged_newest_checkpoint_does_not_cost_the_next_one(tmp_path, command, shell):
    run = tmp_path / "run"
    shell(command("train_net.py", run, *EVERY_STEP, "optim.max_steps=4", "log.keep_checkpoints=2"))
    (run / "checkpoints" / "step_00000004" / "model.safetensors").write_bytes(b"damaged")
    (run / "checkpoints" / ".step_00000005").mkdir()
    output = shell(command("train_net.py", run, *EVERY_STEP, "optim.max_steps=4", "log.keep_checkpoints=1"))
    assert "step_00000004 is corrupt" in output and "resuming from step 3 of 4" in output
    assert names(run) == ["step_00000004"] and load_model(run / "checkpoints" / "step_00000004")
    assert (run / "set_aside_1" / "step_00000004" / "model.safetensors").read_bytes() == b"damaged"


@pytest.mark.cold
def test_older_checkpoints_are_removed_when_the_newer_one_is_on_the_disk(tmp_path, command, shell):
    run, events = tmp_path / "run", tmp_path / "events"
    (tmp_path / "tracer.py").write_text(TRACER.format(events=str(events)))
    python, *tool = command("train_net.py", run, *EVERY_STEP, "optim.max_steps=3", "log.keep_checkpoints=1")
    shell([python, str(tmp_path / "tracer.py"), *tool])
    lines = [line.split("\t") for line in events.read_text().splitlines()]
    final = run / "checkpoints" / "step_00000003"
    temporary = final.with_name(".step_00000003")
    renamed = lines.index(["replace", str(temporary), str(final)])
    removed = next(
        number
        for number, (name, path, *_) in enumerate(lines)
        if number > renamed and name in ("replace", "rmtree") and path.endswith("step_00000002")
    )
    before = [path for name, path, *_ in lines[:renamed] if name == "fsync"]
    files = [path.relative_to(final) for path in final.rglob("*")]
    assert len(files) >= 6 and all(str(temporary / file) in before for file in files)
    assert str(temporary) in before and str(run) in before  # which has the name of checkpoints/
    assert str(run / "log.jsonl") in before
    between = [path for name, path, *_ in lines[renamed:removed] if name == "fsync"]
    assert str(run / "checkpoints") in between


def test_a_new_run_does_not_keep_the_files_of_an_earlier_one(tmp_path, command, shell):
    run = tmp_path / "run"
    short = ("optim.max_steps=2", "log.attention_every_epochs=0")
    shell(command("train_net.py", run, *short))
    best = (run / "best" / "model.safetensors").read_bytes()
    identity = json.loads((run / "run.json").read_text())
    assert all(json.loads(file.read_text())["run"] == identity["run"] for file in run.glob("**/model.json"))
    shutil.rmtree(run / "checkpoints")
    output = shell(command("train_net.py", run, *short, "model.overrides.depth=1"))
    assert f"best, config.yaml, log.jsonl, run.json, tensorboard moved to {run / 'set_aside_1'}" in output
    assert len(load_model(run / "best").blocks) == len(load_model(run).blocks) == 1
    assert (run / "set_aside_1" / "best" / "model.safetensors").read_bytes() == best
    assert len(load_model(run / "set_aside_2").blocks) == 2  # the published model
    assert json.loads((run / "run.json").read_text()) != identity

    # nor does a run replace one that is named best
    inner, outer = tmp_path / "best", tmp_path
    shutil.copytree(run, inner)
    before = {file: file.read_bytes() for file in inner.rglob("*") if file.is_file()}
    refused = shell(command("train_net.py", outer, *short), expect=2)
    assert f"error: output_dir: {inner} is not the best model of a run" in refused and "Traceback" not in refused
    assert before == {file: file.read_bytes() for file in inner.rglob("*") if file.is_file()}


def tensors(run, step, file="model.safetensors"):
    return load_file(run / "checkpoints" / f"step_{step:08d}" / file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "first", "then"),
    [
        (1, "python", "python"),
        (0, "python", "python"),
        (3, "torchrun 2", "torchrun 2"),
        (1, "torchrun 2", "python"),
    ],
)
def test_changed_optimizer_settings_are_applied(tmp_path, command, shell, stage, first, then):
    """The fourth step with other settings, from the same checkpoint, compared with the update rule of AdamW."""
    settings = (*EVERY_STEP, "optim.max_steps=4", "optim.warmup_epochs=0", "optim.lr=0.01", "optim.weight_decay=5")
    settings = (*settings, f"runtime.zero_stage={stage}", "optim.clip_grad=1")
    shell(command("train_net.py", tmp_path / "base", *settings, launcher=first))
    before = tensors(tmp_path / "base", 3)
    moments = tensors(tmp_path / "base", 3, "optimizer.safetensors")

    def resume(name, *changes):
        run = tmp_path / name
        shutil.copytree(tmp_path / "base", run)
        shutil.rmtree(run / "checkpoints" / "step_00000004")
        output = shell(command("train_net.py", run, *settings, *changes, launcher=then))
        assert "resuming from step 3 of 4" in output
        keys = [change.partition("=")[0] for change in changes]
        (record,) = log_records(run, "settings")
        assert record["step"] == 3 and [change.partition(":")[0] for change in record["changes"]] == [
            "output_dir",
            *keys,
        ]
        assert f"step 3: settings changed since this checkpoint: {'; '.join(record['changes'])}" in output
        trained, stated = load_config(run / "config.yaml"), load_config(run / "config.yaml", changes)
        assert trained == stated  # config.yaml has the changes
        return tensors(run, 4), tensors(run, 4, "optimizer.safetensors")

    same, same_moments = resume("same")
    model = load_model(tmp_path / "base")
    decayed = {n for n, p in model.named_parameters() if p.dim() > 1} - set(model.no_weight_decay())
    lr = learning_rate(3, 4, 0, 0.01)
    for name, decay in (("heavier", 10), ("none", 0)):
        other, _ = resume(name, f"optim.weight_decay={decay}")
        for key, weight in before.items():
            expected = lr * (5 - decay) * weight if key in decayed else torch.zeros_like(weight)
            torch.testing.assert_close(other[key] - same[key], expected, rtol=1e-3, atol=1e-6)

    layered, _ = resume("layered", "optim.layer_decay=0.5")
    layers = model.layer_groups()
    for depth, keys in enumerate(layers):
        for key in keys:
            expected = 0.5 ** (len(layers) - 1 - depth) * (same[key] - before[key])
            torch.testing.assert_close(layered[key] - before[key], expected, rtol=1e-3, atol=1e-6)

    _, clipped = resume("clipped", "optim.betas=[0.5,0.9]", "optim.clip_grad=0.01")
    keys = [key for key in moments if key.endswith("exp_avg")]
    gradient = torch.cat([(same_moments[key] - 0.9 * moments[key]).flatten() / 0.1 for key in keys])
    small = torch.cat([(clipped[key] - 0.5 * moments[key]).flatten() / 0.5 for key in keys])
    assert float(small.norm()) == pytest.approx(0.01, rel=0.02) and float(gradient.norm()) > 0.02
    torch.testing.assert_close(small / small.norm(), gradient / gradient.norm(), rtol=0, atol=1e-3)


def test_config_yaml_states_what_the_newest_checkpoint_was_trained_with(tmp_path, command, shell, signal_when):
    run = tmp_path / "run"
    rarely = ("log.checkpoint_every_epochs=0.6", "log.validate_every_epochs=0")
    shell(command("train_net.py", run, *rarely, "optim.max_steps=3"))
    config = (run / "config.yaml").read_bytes()
    changed = command("train_net.py", run, *rarely, "optim.max_steps=1000000", "log.checkpoint_every_epochs=0")
    signal_when(lambda: len(log_records(run)) > 3, changed)
    assert (run / "config.yaml").read_bytes() == config and log_records(run, "settings")
    (run / "config.yaml").write_text("edited: true")
    output = shell(command("train_net.py", run, *rarely, "optim.max_steps=3", "optim.weight_decay=1"))
    assert "settings NOT used, because the run is finished: optim.weight_decay: 0.05 -> 1" in output
    assert (run / "config.yaml").read_bytes() == config


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "launcher"), [(0, "python"), (2, "torchrun 2"), (3, "torchrun 2")])
def test_skipped_first_steps_do_not_prevent_checkpoints_with_an_average(tmp_path, command, shell, stage, launcher):
    """The weights are infinite in one place, so that no step is finite."""
    start, run = tmp_path / "start", tmp_path / "run"
    short = (*EVERY_STEP, f"runtime.zero_stage={stage}", "optim.skip_non_finite=true", "optim.ema_decay=0.9")
    shell(command("train_net.py", start, *short, "optim.max_steps=1"))
    weights = load_file(start / "model.safetensors")
    weights["blocks.0.refine.mlp.0.weight"][0, 0] = float("inf")
    with safe_open(start / "model.safetensors", "pt") as file:
        save_file(weights, start / "model.safetensors", file.metadata())
    short = (*short, f"init_from={start}")
    shell(command("train_net.py", run, *short, "optim.max_steps=2", launcher=launcher))
    assert log_records(run)[-1]["skipped_steps"] == 2
    average = load_file(run / "checkpoints" / "step_00000002" / "ema.safetensors")
    assert all(torch.equal(average[name], weights[name]) for name in weights)
    output = shell(command("train_net.py", run, *short, "optim.max_steps=3", launcher=launcher))
    assert "resuming from step 2 of 3" in output
    average = load_file(run / "checkpoints" / "step_00000003" / "ema.safetensors")
    assert all(torch.equal(average[name], weights[name]) for name in weights)


def test_failed_videos_are_listed_before_a_checkpoint(tmp_path, command, signal_when, small_set):
    """A run that resumes from it does not read the videos again."""
    root, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(small_set, root)
    (root / "videos" / "7.mp4").write_bytes(b"no video")
    settings = (*EVERY_STEP, f"data.root={root}", "data.max_failed=0.1", "log.every=1000", "optim.max_steps=1000")
    after_an_epoch = run / "checkpoints" / "step_00000005"
    signal_when(after_an_epoch.exists, command("train_net.py", run, *settings))
    assert (run / "failed_videos.txt").read_text().startswith(str(root / "videos" / "7.mp4"))


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_ctrl_c_saves_and_exits(tmp_path, command, shell, signal_when, workers):
    straight, interrupted = tmp_path / "straight", tmp_path / "interrupted"
    shell(command("train_net.py", straight))
    training = with_fault(command("train_net.py", interrupted, f"data.workers={workers}"), "slow_steps")
    status, output = signal_when((interrupted / "log.jsonl").exists, training, signal.SIGINT)
    assert status == 75, output[-3000:]
    assert "no step is saved" in output and "stopped by SIGINT: saved step " in output and "Traceback" not in output
    assert "resuming from step " in shell(command("train_net.py", interrupted))
    assert_same_weights(straight, interrupted)


@pytest.mark.slow
def test_a_run_of_version_0_1_resumes_bit_for_bit(tmp_path, command, shell):
    """Its files have no identity, and its checkpoints no settings."""
    run, earlier = tmp_path / "run", tmp_path / "earlier"
    often = ("log.checkpoint_every_epochs=0.3", "log.keep_checkpoints=9", "optim.ema_decay=0.9", "data.repeats=2")
    shell(command("train_net.py", run, *often))
    shutil.copytree(run, earlier)
    for step in (9, 10):
        shutil.rmtree(earlier / "checkpoints" / f"step_{step:08d}")
    (earlier / "run.json").unlink()
    for file in earlier.glob("**/model.json"):
        description = json.loads(file.read_text())
        del description["run"]
        del description["training"]["repeats"]
        description["training"]["videos"] = description["training"].pop("num_videos")
        file.write_text(json.dumps(description))
    for checkpoint in (earlier / "checkpoints").glob("step_*"):
        (checkpoint / "config.yaml").unlink()
        state = json.loads((checkpoint / "state.json").read_text())
        (checkpoint / "state.json").write_text(json.dumps({**state, "files": file_hashes(checkpoint)}))
    output = shell(command("train_net.py", earlier, *often))
    assert "resuming from step 6 of 10" in output and not list(earlier.glob("set_aside_*"))
    assert_same_weights(run, earlier)
    assert (
        json.loads((earlier / "model.json").read_text())["run"] == json.loads((earlier / "run.json").read_text())["run"]
    )
