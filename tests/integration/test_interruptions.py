"""Runs that are stopped, corrupted or diverge: nothing is lost, and one line says what happened."""

import re
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from support.runs import assert_same_weights, log_records, with_fault

OFTEN = ("log.checkpoint_every_epochs=0.6",)  # every 3 of 5 steps


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signalled_run_saves_and_exits(tmp_path, command, shell, signal_when, number):
    straight, signalled = tmp_path / "straight", tmp_path / "signalled"
    shell(command("train_net.py", straight, *OFTEN))
    training = with_fault(command("train_net.py", signalled, "data.workers=1"), "slow_steps")
    status, output = signal_when((signalled / "log.jsonl").exists, training, number)
    assert status == 75, output[-3000:]
    assert f"stopped by {number.name}: saved step " in output and "Traceback" not in output
    assert not (signalled / "checkpoints" / "step_00000010").exists()
    output = shell(command("train_net.py", signalled))
    assert "resuming from step " in output
    assert_same_weights(straight, signalled)


@pytest.mark.parametrize("launcher", ["python", pytest.param("torchrun 2", marks=pytest.mark.slow)])
def test_a_signal_during_a_validation_costs_no_further_step(tmp_path, command, shell, launcher):
    """Launchers kill processes that do not end in time."""
    run, status = tmp_path / "run", 75 if launcher == "python" else 1
    settings = (*OFTEN, "log.keep_checkpoints=9", "log.validate_every_epochs=1", "log.attention_every_epochs=0")
    stopped = with_fault(command("train_net.py", run, *settings, launcher=launcher), "stopped_in_validation")
    assert "saved step 5 of 10" in shell(stopped, expect=status)
    assert log_records(run)[-1]["step"] == log_records(run, "val")[-1]["step"] == 5
    assert "resuming from step 5 of 10" in shell(stopped)  # after the last validation, nothing remains to be done
    assert log_records(run, "val")[-1]["step"] == 10

    # A validation that is repeated when the run resumes: its step is saved already.
    for step in (6, 9, 10):
        shutil.rmtree(run / "checkpoints" / f"step_{step:08d}")
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(line for line in lines if '"val"' not in line))
    assert "saved step 5 of 10" in shell(stopped, expect=status)
    assert len(log_records(run, "val")) == 1 and not list(run.glob("set_aside_*"))


def test_a_corrupt_checkpoint_is_reported_and_the_previous_one_used(tmp_path, command, shell):
    straight, corrupt = tmp_path / "straight", tmp_path / "corrupt"
    shell(command("train_net.py", straight, *OFTEN))
    for how in ("changed", "truncated", "missing"):
        shutil.rmtree(corrupt, ignore_errors=True)
        shutil.copytree(straight, corrupt)
        newest = corrupt / "checkpoints" / "step_00000010"
        shard = max(newest.rglob("*optim_states.pt"), key=lambda file: file.stat().st_size)
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        if how == "missing":
            shard.unlink()
        else:
            shard.write_bytes(content if how == "changed" else content[:1000])
        output = shell(command("train_net.py", corrupt, *OFTEN))
        words = "is missing" if how == "missing" else "has changed since it was written"
        assert f"checkpoint {newest} is corrupt: {shard.relative_to(newest)} {words}" in output
        assert "resuming from step 9 of 10" in output
        assert_same_weights(straight, corrupt)
    for checkpoint in (corrupt / "checkpoints").glob("step_*"):
        (checkpoint / "model.safetensors").write_bytes(b"")
    output = shell(command("train_net.py", corrupt, *OFTEN), expect=2)
    assert "output_dir: all checkpoints in" in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("settings", "launcher"),
    [
        (("runtime.zero_stage=0",), "python"),
        pytest.param(("runtime.zero_stage=1",), "python", marks=pytest.mark.slow),
        pytest.param(("runtime.zero_stage=2",), "torchrun 2", marks=pytest.mark.slow),
        pytest.param(("runtime.zero_stage=3",), "torchrun 2", marks=pytest.mark.slow),
        pytest.param(("runtime.precision=bf16",), "python", marks=pytest.mark.slow),
    ],
)
def test_divergence_is_a_one_line_error_and_changes_no_weight(tmp_path, command, shell, settings, launcher):
    run = tmp_path / "run"
    diverging = ("optim.name=sgd", "optim.lr=1e30", "optim.warmup_epochs=0.2", "log.checkpoint_every_epochs=0.2")
    status = 3 if launcher == "python" else 1
    output = shell(command("train_net.py", run, *diverging, *settings, launcher=launcher), expect=status)
    (message, *_) = [line for line in output.splitlines() if "gradients are not finite" in line]
    assert re.search(r", rank [01]: gradients", message) and ".mp4" in message and "no weight was changed" in message
    assert launcher != "python" or "Traceback" not in output
    newest = max((run / "checkpoints").glob("step_*"))
    assert f"step {int(newest.name[5:]) + 1}, " in message  # the first step that could not be taken
    weights = load_file(newest / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_activation_checkpointing_and_compiling_change_no_result(tmp_path, command, shell, stage, monkeypatch):
    if stage == 3:  # gathers weights when modules are called; a folded projection must take part
        monkeypatch.setenv("LOOKUPVIVIT_KERNELS", "folded")
    plain, other = tmp_path / "plain", tmp_path / "other"
    sgd = ("optim.name=sgd", "optim.lr=0.05", "optim.layer_decay=0.8", "optim.max_steps=4")
    sgd += (f"runtime.zero_stage={stage}",)
    shell(command("train_net.py", plain, *sgd))
    shell(command("train_net.py", other, *sgd, "runtime.activation_checkpointing=true"))
    assert_same_weights(plain, other)
    if stage == 1:
        shell(command("train_net.py", tmp_path / "compiled", *sgd, "runtime.compile=true"), timeout=600)
        one, two = (load_file(run / "model.safetensors") for run in (plain, tmp_path / "compiled"))
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)
    assert len(log_records(other)) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "first", "then"),
    [
        (("runtime.zero_stage=0", "optim.name=sgd"), "torchrun 2", "python"),
        (("runtime.zero_stage=1",), "python", "torchrun 2"),
        (("runtime.zero_stage=2", "optim.name=sgd"), "torchrun 2", "python"),
        (("runtime.zero_stage=3",), "torchrun 2", "python"),
        (("runtime.precision=bf16",), "torchrun 2", "python"),
    ],
)
def test_a_run_resumes_with_another_number_of_ranks(tmp_path, command, shell, settings, first, then):
    straight, changed = tmp_path / "straight", tmp_path / "changed"
    settings = (*settings, "optim.lr=0.01", "log.checkpoint_every_epochs=0.6", "optim.max_steps=6")
    shell(command("train_net.py", straight, *settings, launcher=first))
    shutil.copytree(straight, changed)
    shutil.rmtree(changed / "checkpoints" / "step_00000006")
    output = shell(command("train_net.py", changed, *settings, launcher=then))
    ranks = ("2", "1") if "2" in first else ("1", "2")
    assert f"was written by {ranks[0]} ranks; resuming with {ranks[1]}" in output
    assert "resuming from step 3 of 6" in output
    middle = straight / "checkpoints" / "step_00000003"
    before, one, two = (load_file(run / "model.safetensors") for run in (middle, straight, changed))
    is_bf16 = "precision=bf16" in settings[0]
    for name in one:
        if not is_bf16:
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=2e-4)
        elif one[name].dim() > 1:
            # Adam takes a full step for a gradient that only rounding makes non-zero (the keys' biases), so single
            # weights may differ. A matrix differs by 0.016 of its update, and by more than 0.4 if moments are lost.
            assert (one[name] - two[name]).norm() < 0.06 * (one[name] - before[name]).norm(), name
    losses = [[record["loss"] for record in log_records(run)] for run in (straight, changed)]
    assert losses[0] == pytest.approx(losses[1], abs=3e-2 if is_bf16 else 1e-4)


@pytest.mark.slow
def test_a_full_disk_is_a_one_line_error_and_costs_no_checkpoint(tmp_path, command, shell):
    """A limit on file sizes makes the same calls fail as a full disk does."""
    straight, run = tmp_path / "straight", tmp_path / "run"
    shell(command("train_net.py", straight, *OFTEN))
    shutil.copytree(straight, run)
    for step in (6, 9, 10):
        shutil.rmtree(run / "checkpoints" / f"step_{step:08d}", ignore_errors=True)
    first = min((straight / "checkpoints").glob("step_*"))
    if not (run / "checkpoints" / first.name).exists():
        shutil.copytree(first, run / "checkpoints" / first.name)
    before = {file: file.read_bytes() for file in (run / "checkpoints").rglob("step_*/**/*") if file.is_file()}
    for kilobytes in (40, 300):  # publishing the model fails; then DeepSpeed's shards
        limited = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$0" "$@"', *command("train_net.py", run, *OFTEN)]
        output = shell([*limited, "log.attention_every_epochs=0"], expect=2)
        (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
        assert "cannot be written" in error and "Traceback" not in output
        assert all(file.read_bytes() == content for file, content in before.items())
        assert load_file(run / "model.safetensors")  # complete
    shell(command("train_net.py", run, *OFTEN))
    assert_same_weights(straight, run)


@pytest.mark.slow
def test_settings_changed_since_the_checkpoint_are_reported(tmp_path, command, shell):
    run = tmp_path / "run"
    shell(command("train_net.py", run, *OFTEN, "optim.max_steps=6"))
    written = (run / "config.yaml").read_text()
    finished = shell(command("train_net.py", run, *OFTEN, "optim.max_steps=6", "optim.lr=0.5"))
    assert "settings NOT used, because the run is finished: optim.lr: 0.001 -> 0.5" in finished
    assert (run / "config.yaml").read_text() == written
    longer = shell(command("train_net.py", run, *OFTEN, "optim.max_steps=8"))
    assert "settings changed since this checkpoint: optim.max_steps: 6 -> 8" in longer
    assert "max_steps: 8" in (run / "config.yaml").read_text()
