"""Whatever happens to a run, its processes end: workers, children and other ranks too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.paths import ROOT
from support.runs import free_port, with_fault

FAULTS = {
    "out_of_memory": "OutOfMemoryError: CUDA out of memory",
    "killed_worker": "is killed by signal: Killed",
    "small_shared_memory": "unable to ",
    "small_shared_memory_for_labels": "unable to allocate shared memory",
    "decoder_error": "IndexError: list index out of range",
}
WITH_WORKERS = (
    "data.workers=2",
    "data.decode_seconds=0",
    "log.attention_every_epochs=0",
    "log.validate_every_epochs=0",
)


@pytest.fixture
def faulty(command):
    """The command line of a training run with a fault."""

    def build(fault: str, run: Path, launcher: str = "python") -> list[str]:
        return with_fault(command("train_net.py", run, *WITH_WORKERS, launcher=launcher), fault)

    return build


@pytest.fixture
def descendants(monkeypatch, request):
    """All processes that this test has started directly or indirectly and that still run."""
    monkeypatch.setenv("STARTED_BY_TEST", request.node.name)

    def find() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("STARTED_BY_TEST") == request.node.name and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    yield find
    for process in find():
        process.kill()


def assert_none_left(find):
    deadline = time.monotonic() + 30  # launchers have helpers that notice the end a little later
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


@pytest.mark.parametrize(
    "fault",
    [
        "out_of_memory",
        "killed_worker",
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in list(FAULTS)[2:]),
    ],
)
@pytest.mark.cold
def test_a_run_with_workers_ends_after_any_exception(tmp_path, faulty, shell, descendants, fault):
    output = shell(faulty(fault, tmp_path / "run"), expect=1, timeout=120)
    assert FAULTS[fault] in output, output
    assert_none_left(descendants)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["out_of_memory", "killed_worker", "small_shared_memory", "decoder_error"])
@pytest.mark.parametrize("launcher", ["torchrun 2", "deepspeed 2"])
def test_a_launcher_ends_when_one_rank_fails(tmp_path, faulty, shell, descendants, fault, launcher):
    output = shell(faulty(fault, tmp_path / "run", launcher), expect=1, timeout=180)
    assert FAULTS[fault] in output, output
    assert_none_left(descendants)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["out_of_memory", "killed_worker", "small_shared_memory", "decoder_error"])
def test_without_a_launcher_every_rank_ends_when_one_fails(tmp_path, faulty, descendants, fault):
    ranks = start_two_ranks(faulty(fault, tmp_path / "run"))
    statuses, outputs = finish(ranks)
    assert 0 not in statuses and FAULTS[fault] in outputs[1]
    assert_none_left(descendants)


def start_two_ranks(command):
    rendezvous = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **rendezvous, "RANK": rank, "LOCAL_RANK": rank},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in "01"
    ]


def finish(ranks):
    try:
        outputs = [process.communicate(timeout=180)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return [process.returncode for process in ranks], outputs


@pytest.mark.slow
def test_a_rank_that_waits_outside_of_collectives_ends_with_the_others(tmp_path, descendants):
    """NCCL does not notice that another rank has ended: rank 0 sleeps, as in a collective on a GPU."""
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from lookupvivit.cli.errors import one_line_errors\n"
        "from lookupvivit.training import distributed\n"
        "with one_line_errors(''):\n"
        "    world = distributed.start(1)\n"
        "    if world.is_main:\n"
        "        time.sleep(600)\n"
        "    raise ValueError('unexpected')\n"
    )
    statuses, outputs = finish(start_two_ranks([sys.executable, str(program)]))
    assert statuses == [1, 1]
    assert "error (rank 0): ended because rank 1 failed" in outputs[0] and "ValueError: unexpected" in outputs[1]
    assert_none_left(descendants)


@pytest.mark.slow
@pytest.mark.cold
def test_a_library_call_that_raises_does_not_block_the_exit(tmp_path, small_set, command, shell, descendants):
    words = command("train_net.py", tmp_path / "run", *WITH_WORKERS)
    config, settings = words[words.index("--cfg") + 1], words[words.index("--cfg") + 2 :]
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'support')!r})\n"
        "import faults; faults.out_of_memory()\n"
        "from lookupvivit.config.loading import load_config\n"
        "from lookupvivit.training.trainer import train\n"
        f"train(load_config({config!r}, {settings!r}))\n"
    )
    output = shell([sys.executable, str(program)], expect=1, timeout=120)
    assert FAULTS["out_of_memory"] in output
    assert_none_left(descendants)


def test_sigterm_ends_a_process_that_has_left_the_training_loop(tmp_path, faulty, signal_when):
    run = tmp_path / "run"
    status, _ = signal_when((run / "closing").exists, faulty("slow_close", run), signal.SIGTERM)
    assert status == -signal.SIGTERM
    assert (run / "checkpoints" / "step_00000010").is_dir()
