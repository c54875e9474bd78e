"""Training and test runs, started by the command lines of the tools."""

import hashlib
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.runs import assert_same_weights, log_records, with_fault

from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.weights.files import load_model


def test_a_killed_run_resumes_and_ends_bit_identical(tmp_path, command, shell, signal_when):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    often = ("log.checkpoint_every_epochs=0.6", "optim.ema_decay=0.9")  # every 3 of 5 steps
    output = shell(command("train_net.py", straight, *often))
    assert "starting from scratch" in output

    for moment in ("step_00000003", ".step_00000006"):  # written; being written
        slow = with_fault(command("train_net.py", killed, *often), "slow_saving")
        status, _ = signal_when((killed / "checkpoints" / moment).exists, slow)
        assert status == -signal.SIGKILL
    output = shell(command("train_net.py", killed, *often))
    assert re.search(r"resuming from step [36] of 10", output)
    assert_same_weights(straight, killed)
    drop = ("clips_per_second", "data_wait", "mfu", "memory")
    assert all(0 < record["mfu"] < 2 and 0.1 < record["memory"] < 100 for record in log_records(straight))
    one, other = (
        [{k: v for k, v in r.items() if k not in drop} for r in log_records(run)] for run in (straight, killed)
    )
    assert one == other  # every step is logged once, with the same values
    assert [record["step"] for record in one] == list(range(1, 11))
    assert log_records(straight, "val") == log_records(killed, "val")
    assert [record["step"] for record in log_records(straight, "val")] == [5, 10]

    # killed between its last checkpoint and the validation
    *before, last = (killed / "log.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(last)["kind"] == "val"
    (killed / "log.jsonl").write_text("".join(before))
    shell(command("train_net.py", killed, *often))
    assert log_records(straight, "val") == log_records(killed, "val")

    # a run of another model does not resume these checkpoints
    refused = shell(command("train_net.py", straight, "model.overrides.depth=1"), expect=2)
    assert "overrides.depth: 2 -> 1" in refused and "Traceback" not in refused
    refused = shell(command("train_net.py", straight, "optim.name=sgd"), expect=2)
    assert "optim.name: adamw -> sgd" in refused and "Traceback" not in refused

    again = shell(command("train_net.py", straight, *often))
    assert "already finished (10 steps)" in again and "val top-1" not in again

    # the contents of a run directory
    assert len(list((straight / "checkpoints").glob("step_*"))) == 2  # log.keep_checkpoints
    assert len(list((straight / "attention").glob("*.png"))) == 4  # 2 clips, after epoch 1 and at the end
    assert list((straight / "tensorboard").glob("events*"))
    model = load_model(straight)
    assert model(torch.zeros(1, 3, 4, 64, 64)).logits.shape == (1, 10)


def test_test_net_scores_every_video_once(tmp_path, command, shell):
    run = tmp_path / "run"
    shell(command("train_net.py", run, "optim.max_steps=1"))
    output = shell(command("test_net.py", run))
    predictions = Predictions.load(run / "predictions" / "2x3.npz")
    assert predictions.view_logits.shape == (13, 7, 10)  # and the view of a 1x1 test
    digest = hashlib.blake2b((run / "model.safetensors").read_bytes(), digest_size=16).hexdigest()
    facts = {"checkpoint": str(run), "digest": digest, "step": 1, "precision": "fp32", "sampling": "clip"}
    facts |= {"missing_videos": 0, "broken_videos": {}, "compressed_size": [2, 3, 3]}
    assert predictions.facts == facts
    summary = json.loads((run / "predictions/2x3.json").read_text())
    confusion = summary.pop("confusion")
    assert sum(sum(row.values()) for row in confusion.values()) == 13
    correct = {name: 100 * row.get(name, 0) / sum(row.values()) for name, row in confusion.items()}
    assert {name: score["top1"] for name, score in summary.pop("class_top1").items()} == pytest.approx(correct)
    assert summary == {**facts, **predictions.summary()}

    # the validation of the training run, from the logits of the same view
    centre = predictions.view_logits[:, 6].astype(np.float64)
    losses = np.log(np.exp(centre).sum(axis=1)) - np.take_along_axis(centre, predictions.labels[:, None], 1)[:, 0]
    (validation,) = log_records(run, "val")
    assert validation["loss"] == pytest.approx(losses.mean(), abs=1e-4)
    assert validation["top1"] == summary["views"]["1x1"]["top1"]
    shell(command("test_net.py", run, "runtime.precision=bf16", "eval.clips=1", "eval.crops=1"))
    bfloat16 = json.loads((run / "predictions/1x1.json").read_text())
    assert bfloat16["precision"] == "bf16"
    shell(command("test_net.py", run, "eval.compressed_size=1x2x2", "eval.clips=1", "eval.crops=1"))
    small = json.loads((run / "predictions/1x1_compressed_1x2x2.json").read_text())
    assert small["compressed_size"] == [1, 2, 2]
    refused = shell(command("test_net.py", run, "data.stride=2"), expect=2)
    assert "preprocessing.stride: 1 -> 2" in refused and "Traceback" not in refused
    assert "of 13; 95 %" in output
    refused = shell(command("test_net.py", run, "eval.compressed_size=2x9x3"), expect=2)
    assert re.search(r"eval\.compressed_size: .*9.*8", refused)

    # a plain loop over the same files gives the same logits
    from data_pipelines.video.reader import read_frames

    model = load_model(run)
    with torch.no_grad():
        for i in (0, 12):
            frames = torch.from_numpy(read_frames(predictions.video_names[i], [4, 5, 6, 7])).float() / 127.5 - 1
            crop = frames[:, -64:, -64:].permute(3, 0, 1, 2)[None]  # last clip (view 5), last crop of the longer side
            np.testing.assert_allclose(model(crop).logits[0], predictions.view_logits[i, 5], atol=1e-5)


@pytest.mark.slow
def test_one_frame_of_each_clip(tmp_path, command, shell):
    """What one frame alone reveals: the middle one, repeated."""
    run = tmp_path / "run"
    shell(command("train_net.py", run, "optim.max_steps=1", "optim.warmup_epochs=0"))
    shell(command("test_net.py", run, "eval.clips=1", "eval.crops=1"))
    assert "1x1_single_frame" in shell(
        command("test_net.py", run, "eval.clips=1", "eval.crops=1", "eval.single_frame=true")
    )
    one, clip = (Predictions.load(run / "predictions" / f"1x1{name}.npz") for name in ("_single_frame", ""))
    assert one.facts["single_frame"] and not np.array_equal(one.view_logits, clip.view_logits)
    from data_pipelines.video.reader import read_frames

    middle = one.frame_indices[0, 0, 2]
    frame = torch.from_numpy(read_frames(one.video_names[0], [int(middle)])).float() / 127.5 - 1
    top, left = ((side - 64) // 2 for side in frame.shape[1:3])
    still = frame[:, top : top + 64, left : left + 64].permute(3, 0, 1, 2)[None].expand(-1, -1, 4, -1, -1)
    with torch.no_grad():
        np.testing.assert_allclose(load_model(run)(still).logits[0], one.view_logits[0, 0], atol=1e-5)


@pytest.mark.slow
def test_a_small_dataset_run_freezes_balances_and_ends_early(tmp_path, command, shell):
    start, run = tmp_path / "start", tmp_path / "run"
    shell(command("train_net.py", start, "optim.max_steps=1"))
    settings = (f"init_from={start}", "optim.freeze_blocks=1", "optim.class_weights=true", "data.balance_classes=true")
    early = (*settings, "optim.lr=1e-9", "optim.max_steps=40", "optim.patience=1", "optim.warmup_epochs=0")
    output = shell(command("train_net.py", run, *early))
    assert "step 10 of 40: ends early, because the best validation was at step 5" in output
    assert f"its model is in {run / 'best'}" in output
    assert [record["step"] for record in log_records(run, "val")] == [5, 10]
    again = shell(command("train_net.py", run, *early))
    assert "ends early" in again and len(log_records(run)) == 10
    before, after = (load_file(folder / "model.safetensors") for folder in (start, run))
    kept = {name for name in before if torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(("embedding.", "positions", "compress.", "blocks.0."))}
    assert frozen <= kept and {"blocks.1.lookup_mlp.0.weight", "lookup_head.bias"}.isdisjoint(kept)
    refused = shell(command("train_net.py", run, *early, "optim.freeze_blocks=0"), expect=2)
    assert "optim.freeze_blocks: 1 -> 0" in refused


@pytest.mark.parametrize(
    ("tool", "overrides", "message"),
    [
        ("train_net.py", ("optim.lrr=1",), r"optim\.lrr: .*optim\.lr\?"),
        ("train_net.py", ("model.overrides.dept=3",), "dept.*depth"),
        ("train_net.py", ("optim.micro_batch_size=3",), r"optim\.batch_size: .*8"),
        ("train_net.py", ("init_from=nowhere",), "nowhere: not found"),
        (
            "train_net.py",
            ("data.dataset=kinetics", "data.root=nowhere", "data.camera_motion={}"),
            r"nowhere/train\.csv: ",
        ),
        ("train_net.py", ("data.camera_motion={train_vidoes: 4}",), r"data\.camera_motion.*train_vidoes"),
        ("train_net.py", ("model.overrides.num_heads=0",), "model: .*num_heads"),
        ("train_net.py", ("model.overrides.gelu=erf",), "model: .*gelu.*erf"),
        ("train_net.py", ("output_dir=/proc/run",), "/proc/run"),
        ("test_net.py", (), "run: not found"),
    ],
)
def test_a_users_mistake_is_a_one_line_error(tmp_path, command, shell, tool, overrides, message):
    output = shell(command(tool, tmp_path / "run", *overrides), expect=2)
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert re.search(message, error), error
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["python", "torchrun 2"])
def test_failed_videos_are_replaced_in_training_and_not_scored(tmp_path, command, shell, small_set, launcher):
    root, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(small_set, root)
    for name in ("7.mp4", "42.mp4"):  # one to train on; the second validation video, rank 1's
        (root / "videos" / name).write_bytes(b"no video")
    epoch = ("data.workers=1", "optim.max_steps=5", f"data.root={root}")  # all 40 videos
    output = shell(command("train_net.py", run, *epoch, "data.max_failed=0.03", launcher=launcher))
    (listed,) = (run / "failed_videos.txt").read_text().splitlines()
    assert listed.startswith(str(root / "videos" / "7.mp4")) and "cannot be decoded" in listed
    assert f"FAILED, replaced by another video: {listed}" in output and "without 1 videos that failed" in output
    assert log_records(run)[-1]["failed_videos"] == 1
    output = shell(command("test_net.py", run, f"data.root={root}", launcher=launcher))
    scores = json.loads((run / "predictions" / "2x3.json").read_text())
    assert scores["videos"] == 12 and [Path(name).name for name in scores["broken_videos"]] == ["42.mp4"]
    assert "FAILED, not in the scores: " in output and "not in the scores: 1 failed" in output
    status = 2 if launcher == "python" else 1
    output = shell(command("train_net.py", tmp_path / "strict", *epoch, launcher=launcher), expect=status)
    assert "data.max_failed: 1 of 40 training videos cannot be read, more than 1.00%" in output
    assert launcher != "python" or "Traceback" not in output


@pytest.mark.cold
@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_ranks_equal_one(tmp_path, command, shell, stage):
    """The same global batch on one rank, in two accumulation steps, and on two ranks (stage 2: by both launchers)."""
    # 13 validation videos, 6 at a time: one rank has a pass more than the other
    sgd = ("optim.name=sgd", "optim.lr=0.05", "optim.max_steps=4", f"runtime.zero_stage={stage}", "eval.batch_size=6")
    runs = {
        "one": ("python", ()),
        "accumulated": ("python", ("optim.micro_batch_size=4",)),
        "torchrun": ("torchrun 2", ()),
    }
    if stage == 2:
        runs["deepspeed"] = ("deepspeed 2", ())
    for name, (launcher, extra) in runs.items():
        shell(command("train_net.py", tmp_path / name, *sgd, *extra, launcher=launcher))
        assert_same_weights(tmp_path / "one", tmp_path / name, rtol=1e-5, atol=1e-6)
        records, expected = (log_records(tmp_path / run, "val") for run in (name, "one"))
        assert records == [record | {"loss": pytest.approx(record["loss"], rel=1e-4)} for record in expected]
    shell(command("test_net.py", tmp_path / "one"))
    shell(command("test_net.py", tmp_path / "torchrun", launcher="torchrun 2"))
    one, two = (Predictions.load(tmp_path / name / "predictions" / "2x3.npz") for name in ("one", "torchrun"))
    assert one.video_names.tolist() == two.video_names.tolist()
    np.testing.assert_allclose(one.view_logits, two.view_logits, atol=1e-4)


@pytest.mark.cold
@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "settings"),
    [
        ("torchrun 2", ("runtime.zero_stage=3", "model.keep=[0.3, 1.0]")),
        ("torchrun 2", ("runtime.precision=bf16",)),
        ("python", ("runtime.precision=bf16", "optim.micro_batch_size=4")),
    ],
)
def test_resuming_is_bit_identical_for_every_precision_and_stage(tmp_path, command, shell, launcher, settings):
    """As left by a kill after the checkpoint of step 3 and before the next."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    settings = (*settings, "log.checkpoint_every_epochs=0.6", "optim.max_steps=5")
    shell(command("train_net.py", straight, *settings, launcher=launcher))
    shutil.copytree(straight, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_00000005")
    (resumed / "model.safetensors").unlink()
    output = shell(command("train_net.py", resumed, *settings, launcher=launcher))
    assert "resuming from step 3 of 5" in output
    assert_same_weights(straight, resumed)
    assert [record["loss"] for record in log_records(straight)] == [record["loss"] for record in log_records(resumed)]


@pytest.mark.slow
def test_bf16_sums_gradients_in_float32(tmp_path, command, shell):
    """Eight micro-batches of one clip are as close to float32 training as one batch of eight is."""
    sgd = ("optim.name=sgd", "optim.lr=0.05", "optim.max_steps=2", "optim.warmup_epochs=0", "augment.mixup=0")
    for name, extra in (("one", ()), ("eight", ("optim.micro_batch_size=1",))):
        shell(command("train_net.py", tmp_path / name, *sgd, "runtime.precision=bf16", *extra))
    shell(command("train_net.py", tmp_path / "exact", *sgd))
    one, eight, exact = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "eight", "exact"))
    kernels = [name for name in exact if "mlp.0.weight" in name]
    error = {k: sum((w[n] - exact[n]).norm() for n in kernels) for k, w in {"one": one, "eight": eight}.items()}
    assert error["eight"] < 2 * error["one"]


@pytest.mark.slow
def test_bf16_training_keeps_float32_weights(tmp_path, command, shell):
    shell(command("train_net.py", tmp_path / "run", "runtime.precision=bf16", "optim.max_steps=3"))
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    kernel = weights["blocks.0.refine.mlp.0.weight"]
    assert not torch.equal(kernel, kernel.bfloat16().float())  # the master weights, not their bf16 copy
