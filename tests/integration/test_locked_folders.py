"""Each run, test and output folder has one process at a time; a second start names the first in one line."""

import json
import os
import signal
import socket
import time

import pytest
from support.runs import log_records

from data_pipelines.io.lock import locked

QUICK = ("log.attention_every_epochs=0", "log.validate_every_epochs=0")


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_refused(output, folder):
    """One line; of several ranks, one line each."""
    errors = [line for line in output.splitlines() if line.startswith("error")]
    holder = f"{folder}: in use by process {os.getpid()} on {socket.gethostname()}, started "
    assert errors and all(holder in line for line in errors), output
    assert "resuming" not in output and "starting" not in output


def test_a_second_start_reports_the_first_and_changes_nothing(tmp_path, command, shell, small_set):
    run, prepared = tmp_path / "run", tmp_path / "prepared"
    shell(command("train_net.py", run, *QUICK, "optim.max_steps=1"))
    predictions = run / "predictions"
    python, tool, *words = command("prepare_dataset.py", run)
    prepare = [python, tool, *words[:2], "--output", str(prepared), f"data.root={small_set}"]
    for file, start in (
        (run / ".lock", command("train_net.py", run, *QUICK, "optim.max_steps=2")),
        (predictions / ".2x3.lock", command("test_net.py", run)),
        (prepared / ".lock", prepare),
    ):
        with locked(file):
            before = names(tmp_path)
            output = shell(start, expect=2)
            assert_refused(output, file.parent)
            assert "Traceback" not in output
            assert names(tmp_path) == before


@pytest.mark.slow
def test_other_tests_of_a_run_are_not_locked(tmp_path, command, shell):
    run = tmp_path / "run"
    shell(command("train_net.py", run, *QUICK, "optim.max_steps=1"))
    with locked(run / ".lock"), locked(run / "predictions" / ".2x3.lock"):
        shell(command("test_net.py", run, "eval.crops=1"))
    assert (run / "predictions" / "2x1.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun 2", "deepspeed 2"])
def test_every_rank_of_a_second_start_ends(tmp_path, command, shell, launcher):
    run = tmp_path / "run"
    with locked(run / ".lock"):
        status = 1 if launcher.startswith("torchrun") else 2
        assert_refused(shell(command("train_net.py", run, *QUICK, launcher=launcher), expect=status, timeout=120), run)
    assert not (run / "config.yaml").exists()


@pytest.mark.slow
@pytest.mark.cold
def test_two_starts_at_once_make_one_run(tmp_path, command, start_tool):
    run = tmp_path / "run"
    processes = [start_tool(command("train_net.py", run, *QUICK, "optim.max_steps=1000000"))[0] for _ in range(2)]
    while not (ended := [process for process in processes if process.poll() is not None]):
        time.sleep(0.05)
    [refused] = ended
    [training] = [process for process in processes if process is not refused]
    while not (run / "log.jsonl").exists():
        assert training.poll() is None
        time.sleep(0.05)
    training.send_signal(signal.SIGTERM)
    assert (refused.wait(60), training.wait(120)) == (2, 75)
    assert [record["step"] for record in log_records(run)] == list(range(1, len(log_records(run)) + 1))


@pytest.mark.cold
@pytest.mark.slow
def test_a_killed_run_is_continued_at_once(tmp_path, command, shell, start_tool):
    """The kill spares the loader workers, as that of a launcher or of the kernel does."""
    run = tmp_path / "run"
    process, output = start_tool(command("train_net.py", run, *QUICK, "data.workers=1", "optim.max_steps=1000"))
    while not (run / "log.jsonl").exists():
        assert process.poll() is None, output.read_text()
        time.sleep(0.01)
    holder = json.loads((run / ".lock").read_text())
    assert holder["pid"] == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    output = shell(command("train_net.py", run, *QUICK, "optim.max_steps=1"))
    assert "taking over" not in output
    assert not (run / ".lock").exists()
