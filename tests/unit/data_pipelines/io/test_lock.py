"""Locks: one holder at a time, who is named; a dead holder is replaced at once, and one on a lost machine later."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.paths import ROOT

from data_pipelines.io import lock
from data_pipelines.io.lock import LockedError, locked

HOLD = """import os, pathlib, sys, time
from data_pipelines.io.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(600)  # a child that outlives its parent
    print("held", flush=True)
    time.sleep(600)"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "folder" / ".lock"


@pytest.fixture
def holder(file):
    """Another process that holds the lock, and has a child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], cwd=ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def of_another_machine(file, **changes):
    """A lock file as another machine writes it, which has no lock on this one."""
    file.parent.mkdir(exist_ok=True)
    entry = {"host": "node7", "pid": 4242, "started": "2026-01-02T03:04:05+00:00", "machine": "other", "token": "1"}
    file.write_text(json.dumps(entry | changes))


def test_the_file_names_the_holder_and_is_gone_afterwards(file):
    with locked(file):
        holder = json.loads(file.read_text())
        assert holder["pid"] == os.getpid() and holder["host"] and holder["started"]
    assert list(file.parent.iterdir()) == []
    with pytest.raises(KeyError), locked(file):
        raise KeyError
    with locked(file):
        pass


def test_a_second_process_is_refused_with_the_name_of_the_first(file, holder):
    content = file.read_bytes()
    with pytest.raises(LockedError) as refusal, locked(file):
        pass
    entry = json.loads(content)
    message = f"in use by process {holder.pid} on {entry['host']}, started {entry['started']}"
    assert str(refusal.value) == f"{file.parent}: {message} (lock file .lock)"
    assert file.read_bytes() == content


def test_a_killed_holder_is_replaced_at_once_even_if_its_children_live(file, holder, monkeypatch):
    monkeypatch.setattr(lock, "_wait_for_heartbeat", lambda *_: pytest.fail("waits"))
    holder.kill()
    holder.wait()
    with locked(file):
        assert json.loads(file.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("has_kernel_locks", [True, False])
def test_a_holder_on_another_machine_keeps_the_lock_while_its_heart_beats(file, has_kernel_locks, monkeypatch):
    if not has_kernel_locks:
        monkeypatch.setattr(lock, "_flock", lambda descriptor: False)
    of_another_machine(file)
    beating = subprocess.Popen(
        [sys.executable, "-c", "import os, sys, time\nwhile True: os.utime(sys.argv[1]); time.sleep(0.05)", str(file)]
    )
    try:
        with pytest.raises(LockedError, match="in use by process 4242 on node7, started 2026"), locked(file):
            pass
    finally:
        beating.kill()
        beating.wait()
    monkeypatch.setattr(lock, "LOST_SECONDS", 0.5)
    with locked(file):  # the machine is lost
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_running_holder_has_a_heartbeat(file, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    with locked(file):
        os.utime(file, ns=(0, 0))
        deadline = time.monotonic() + 60
        while file.stat().st_mtime_ns == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert file.stat().st_mtime_ns


def test_a_holder_that_was_cut_off_ends_when_another_machine_has_taken_over(file):
    code = f"from data_pipelines.io import lock; lock.HEARTBEAT_SECONDS = 0.05\n{HOLD}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        of_another_machine(file)
        assert process.wait(60) == 2
        assert "in use by process 4242 on node7" in process.stderr.readline()
        assert json.loads(file.read_text())["pid"] == 4242
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_link_at_the_lock_file_is_not_followed(file, tmp_path):
    file.parent.mkdir()
    (tmp_path / "precious").write_text("content")
    file.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), locked(file):
        pass
    assert (tmp_path / "precious").read_text() == "content"
