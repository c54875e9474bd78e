"""The moving average of the weights, against an average of the checkpoints of every step."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

import lookupvivit
from lookupvivit.training.ema import decay_of_step
from lookupvivit.weights.files import load_model

EVERY_STEP = ("log.checkpoint_every_epochs=0.2", "log.keep_checkpoints=20")  # of 5 steps an epoch
AVERAGED = ("optim.ema_decay=0.8", *EVERY_STEP)


def averages(run, decay):
    """Per checkpoint: the average of initial weights and checkpoints in float64, and the stored one."""
    settings = json.loads((run / "model.json").read_text())
    torch.manual_seed(0)
    model = lookupvivit.create_model(settings["name"], settings["num_classes"], **settings["overrides"])
    precision = torch.bfloat16 if settings["training"]["precision"] == "bf16" else torch.float32
    average = {name: tensor.to(precision).double() for name, tensor in model.state_dict().items()}
    for step, checkpoint in enumerate(sorted((run / "checkpoints").glob("step_*"))):
        weights, rate = load_file(checkpoint / "model.safetensors"), decay_of_step(step, decay)
        average = {name: rate * old + (1 - rate) * weights[name].double() for name, old in average.items()}
        yield average, load_file(checkpoint / "ema.safetensors")


def assert_average(run, steps):
    count = 0
    for expected, stored in averages(run, 0.8):
        count += 1
        assert expected.keys() == stored.keys()
        for name in expected:
            torch.testing.assert_close(stored[name].double(), expected[name], rtol=0, atol=1e-6)
    assert count == steps


@pytest.mark.slow
def test_the_average_is_saved_resumed_evaluated_and_published(tmp_path, command, shell):
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    shell(command("train_net.py", run, *AVERAGED, "runtime.zero_stage=0"))
    assert_average(run, 10)
    newest = run / "checkpoints" / "step_00000010"
    published, average = load_file(run / "model.safetensors"), load_file(newest / "ema.safetensors")
    assert all(torch.equal(published[name], average[name]) for name in average)
    assert not torch.equal(published["positions"], load_file(newest / "model.safetensors")["positions"])

    shutil.copytree(run, resumed)
    for step in range(5, 11):
        shutil.rmtree(resumed / "checkpoints" / f"step_{step:08d}")
    assert "resuming from step 4" in shell(command("train_net.py", resumed, *AVERAGED, "runtime.zero_stage=0"))
    again = load_file(resumed / "model.safetensors")
    assert all(torch.equal(again[name], published[name]) for name in average)

    # a test of the published weights gives the logged validation scores
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    validation = next(record for record in logged if record["kind"] == "val" and record["step"] == 10)
    shell(command("test_net.py", run, "eval.clips=1", "eval.crops=1"))
    tested = json.loads((run / "predictions" / "1x1.json").read_text())["views"]["1x1"]
    assert (validation["top1"], validation["top5"]) == pytest.approx((tested["top1"], tested["top5"]))
    best = max((r["top1"], -r["step"]) for r in logged if r["kind"] == "val")
    kept = json.loads((run / "best" / "model.json").read_text())
    assert (kept["validation_top1"], -kept["step"]) == pytest.approx(best)
    if kept["step"] == 10:
        assert torch.equal(load_model(run / "best").positions, load_model(run).positions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "settings"),
    [
        ("torchrun 2", ("runtime.zero_stage=1",)),
        ("torchrun 2", ("runtime.zero_stage=2", "optim.layer_decay=0.7")),
        ("torchrun 2", ("runtime.zero_stage=3",)),
        ("python", ("runtime.zero_stage=2", "runtime.precision=bf16")),
        ("torchrun 2", ("runtime.zero_stage=2", "runtime.offload_optimizer=true")),
        ("python", ("runtime.zero_stage=3", "optim.name=sgd", "optim.micro_batch_size=4")),
    ],
)
def test_the_average_of_shards_equals_that_of_whole_weights(tmp_path, command, shell, launcher, settings):
    run, steps = tmp_path / "run", 3
    shell(command("train_net.py", run, *AVERAGED, *settings, f"optim.max_steps={steps}", launcher=launcher))
    assert_average(run, steps)
    if "optim.name=sgd" not in settings:  # and resumes with another number of ranks
        other = "python" if launcher != "python" else "torchrun 2"
        output = shell(command("train_net.py", run, *AVERAGED, *settings, "optim.max_steps=5", launcher=other))
        assert re.search(r"was written by \d ranks; resuming with", output)
        assert_average(run, 5)
