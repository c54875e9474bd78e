"""The doctor: every check on a machine that is well and on one that is not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.paths import ROOT

from data_pipelines.video.decoding_process import decoding_process
from lookupvivit.cli.doctor import communication, gpu, machine, programs, storage, video
from lookupvivit.cli.doctor.report import examine, fail, ok


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Put a module of this source before all others, here and in child processes."""

    def put(name: str, source: str) -> None:
        folder = tmp_path / "modules"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)

    yield put
    decoding_process().kill()  # it knows the modules


def test_versions():
    assert machine.python().mark == machine.torch_version().mark == "ok"
    assert machine.python((3, 9, 18)).mark == machine.torch_version("2.10.1+cpu").mark == "fail"
    assert machine.torch_version("3.0.0").mark == "ok"


def test_a_compiler_is_there_works_or_is_named(tmp_path, monkeypatch):
    good = machine.compiler()
    assert good.mark == "ok" and Path(good.facts["command"]).is_file()
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'fatal error: Python.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    found = machine.compiler()
    assert found.mark == "warn" and "Python.h: No such file" in found.found and "python3-dev" in found.advice
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = machine.compiler()
    assert found.mark == "warn" and "runtime.compile" in found.advice and "g++" in found.advice


def test_cores_and_memory_count_what_a_container_allows(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.usable_cores(tmp_path) == min(1.5, len(os.sched_getaffinity(0)))
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert machine.cores(40, ranks=8).mark == "ok"
    assert machine.cores(24, ranks=8).advice == "set data.workers=2"

    total, available = machine.memory_sizes(cgroup=tmp_path)
    seen = psutil.virtual_memory()
    assert total == pytest.approx(seen.total / 1e9) and available == pytest.approx(seen.available / 1e9, rel=0.2)
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert machine.memory_sizes(cgroup=tmp_path) == (1.0, 1.0)
    marks = [machine.memory(64, free, ranks=1).mark for free in (1, 5, 60)]
    assert marks == ["fail", "warn", "ok"]
    assert machine.memory(64, 30, ranks=8).mark == "warn"  # 32 workers


def test_every_backend_here_reads_what_was_drawn(tmp_path):
    checks = video.VideoChecks(tmp_path)
    found = {name: checks.check(name) for name in video.BACKENDS}
    assert {finding.mark for finding in found.values()} <= {"ok"}, found
    assert {"pyav", "pictures"} <= {name for name in found if "frames" in found[name].found}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no such codec')", "no such codec"),
        ("import os; os.abort()", "SIGABRT"),
        ("import time; time.sleep(60)", "gave nothing within 2 s"),
    ],
)
def test_a_backend_that_raises_crashes_or_hangs_is_told(tmp_path, module, monkeypatch, source, words):
    decoding_process().kill()
    module("decord", source)
    monkeypatch.setattr(video, "SECONDS", 2.0)
    found = video.VideoChecks(tmp_path).check("decord")
    assert found.mark == "fail" and words in found.found and "data.backend=pyav" in found.advice


def test_a_backend_that_is_absent_or_reads_other_frames_is_told(tmp_path, monkeypatch):
    checks = video.VideoChecks(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(video.importlib.util, "find_spec", lambda name: None)
        assert [checks.check(name).mark for name in ("pyav", "decord", "torchcodec")] == ["fail", "warn", "ok"]
    right = checks.drawn
    late = np.concatenate([right[1:], right[-1:]])
    assert "asked for frame 0, it gave frame 1" in checks.compare("decord", late).found
    assert "read (15, 64, 80, 3)" in checks.compare("decord", right[1:]).found
    assert "20.0 grey levels off" in checks.compare("decord", right + np.uint8(20)).found
    assert checks.compare("torchcodec", late).mark == "warn"
    assert checks.compare("pyav", right).mark == checks.compare("decord", right).mark == "ok"
    assert "up to 1 from what pyav reads" in checks.compare("torchcodec", right + np.uint8(1)).found


def test_shared_memory_that_is_small_or_left_behind(tmp_path):
    def look(free: float):
        return storage.shared_memory(tmp_path, 64e9, free, ranks=1)

    assert look(60e9).mark == "ok"
    assert look(64e6).mark == "fail" and "--shm-size" in look(64e6).advice  # what Docker gives
    assert look(200e6).mark == "warn" and "fewer data.workers" in look(200e6).advice
    left, used = (tmp_path / f"deepspeed_allreduce_buffer_0_127.0.0.1_29500_{rank}" for rank in (0, 1))
    left.write_bytes(bytes(10**6))
    used.write_bytes(bytes(10**6))
    mapped = "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", mapped, str(used)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        user.stdout.readline()
        assert storage.unmapped(tmp_path) == [left]
        user.communicate(b"\n")
    found = look(60e9)
    assert found.mark == "warn" and found.facts["stale_files"] == 2 and left.exists()  # it deletes nothing
    command = found.advice.partition("  (")[0]
    os.utime(left, (0, 0))
    subprocess.run(command, shell=True, check=True)
    assert not left.exists() and used.exists()  # the other is too new to be sure


def test_disks(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "WRITTEN", 8 * 2**20)
    found = storage.output_disk(tmp_path / "runs" / "one")
    assert found.mark in ("ok", "warn") and found.facts["bytes"] == 8 * 2**20
    assert found.facts["write_mb_s"] > 0 and str(tmp_path) in found.found and not list(tmp_path.iterdir())
    assert "cannot be written" in storage.output_disk(Path("/proc/runs")).found
    (tmp_path / "file").write_bytes(b"x" * 1000)
    assert storage.output_disk(tmp_path / "file").mark == "fail"
    with monkeypatch.context() as patch:
        patch.setattr(storage, "SLOW_WRITE", 1e9)
        patch.setattr(storage, "LITTLE_SPACE", 0.0)
        assert "checkpoints will take minutes" in storage.output_disk(tmp_path).advice
        patch.setattr(storage, "LITTLE_SPACE", 1e9)
        assert "make space" in storage.output_disk(tmp_path).advice

    folder = tmp_path / "data"
    folder.mkdir()
    assert storage.data_disk(folder).mark == "fail"
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(10**6))
    found = storage.data_disk(folder)
    assert (found.mark, found.facts["files"], found.facts["bytes"]) == ("ok", 3, 3 * 10**6)
    monkeypatch.setattr(storage, "SLOW_READ", 1e9)
    monkeypatch.setattr(storage, "FEW_FILES", 1e9)
    assert "--copies" in storage.data_disk(folder).advice


def test_cuda_and_its_kernels(monkeypatch):
    good = gpu.Device("H100", 80.0, 79.0, (9, 0), True)
    assert gpu.cuda([], None) == ok("no GPU: CPU only", devices=[])
    assert gpu.cuda([], "570.1", build=None).mark == "fail" and "without CUDA" in gpu.cuda([], "570.1", None).found
    assert gpu.cuda([good, good], "570.1").mark == "ok" and "2 GPUs" in gpu.cuda([good, good], "570.1").found
    old = gpu.Device("V100", 32.0, 31.0, (7, 0), False)
    assert "fp16" in gpu.cuda([old], "570.1").advice
    assert "nvidia-smi" in gpu.cuda([gpu.Device("H100", 80.0, 20.0, (9, 0), True)], "570.1").advice
    assert gpu.triton(has_gpu=False).mark == "ok"

    def ended(status, output):
        monkeypatch.setattr(programs, "run", lambda *_, **__: programs.Outcome(status, output, 3.0))
        return gpu.triton(has_gpu=True)

    assert ended(0, '{"version": "3.8", "apart": 1e-5}').mark == "ok"
    assert "0.5 off the reference" in ended(0, '{"version": "3.8", "apart": 0.5}').found
    assert "signal SIGSEGV (RuntimeError: bad)" in ended(-11, "RuntimeError: bad").found
    assert "was stopped after 3 s" in ended(None, "").found


def test_a_check_that_raises_fails_and_a_line_is_one_line():
    result = examine(("broken", lambda: 1 / 0))
    assert result.finding.mark == "fail" and "ZeroDivisionError: division by zero" in result.line(8)
    assert "\n" not in examine(("two", lambda: fail("one\ntwo", "three\nfour"))).line(3)


def test_a_program_past_its_limit_is_killed_with_its_children(tmp_path):
    child = "import os,sys,time; open(sys.argv[1],'w').write(str(os.getpid())); time.sleep(600)"
    parent = "import subprocess,sys; subprocess.run([sys.executable,'-c',*sys.argv[1:]],start_new_session=True)"
    outcome = programs.run(["-c", parent, child, str(tmp_path / "pid")], 3.0)
    assert outcome.status is None and outcome.ending == "was stopped after 3 s"
    number = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_deepspeed_that_cannot_be_imported_is_told(module):
    module("deepspeed", "raise ImportError('torch is too old for me')")
    found = communication.deepspeed()
    assert found.mark == "fail" and "torch is too old for me" in found.found


@pytest.mark.slow
def test_ranks_that_hang_end_or_sum_wrongly_are_told(module, monkeypatch):
    module("sitecustomize", "import os, time\nif 'RANK' in os.environ: time.sleep(600)")  # a rank never gets anywhere
    found = communication.ranks(gpus=0, limit=8.0)
    assert found.mark == "fail" and "no answer within 8 s" in found.found and "GLOO_SOCKET_IFNAME" in found.advice
    ends = "import os\nif 'RANK' in os.environ: os.write(2, b'error: no route to host\\n'); os._exit(1)"
    module("sitecustomize", ends)
    found = communication.ranks(gpus=0)
    assert found.mark == "fail" and "exit status 1 (error: no route to host)" in found.found
    wrong = programs.Outcome(0, '{"right": false, "mb_per_second": 1.0, "ranks": 2}', 1.0)
    monkeypatch.setattr(programs, "run", lambda *_, **__: wrong)
    assert "sum is wrong" in communication.ranks(gpus=2).found
    assert "NCCL_DEBUG" in communication.ranks(gpus=2).advice


@pytest.mark.slow
def test_the_whole_tool(tmp_path):
    (tmp_path / "video.mp4").write_bytes(bytes(1000))
    command = [sys.executable, str(ROOT / "tools" / "doctor.py"), "--output", str(tmp_path), "--data", str(tmp_path)]
    told = subprocess.run(command, text=True, capture_output=True, timeout=300)
    lines = told.stdout.splitlines()
    assert told.returncode == 0, told.stdout + told.stderr
    assert all(line.split()[0] in ("ok", "warn") for line in lines[:-1]) and "0 failed" in lines[-1]
    assert "Traceback" not in told.stderr and os.listdir(tmp_path) == ["video.mp4"]
    broken = tmp_path.parent / "broken"
    broken.mkdir()
    (broken / "deepspeed.py").write_text("raise ImportError('torch is too old for me')")
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(broken)}
    told = subprocess.run([*command, "--json"], text=True, capture_output=True, timeout=300, env=environment)
    found = {check["name"]: check for check in json.loads(told.stdout)["checks"]}
    assert told.returncode == 1 and found["DeepSpeed"]["mark"] == found["ranks"]["mark"] == "fail"
    assert found["C++ compiler"]["mark"] == "warn" and found["video: pyav"]["mark"] == "ok"
    refused = subprocess.run([*command, "--data", "nowhere"], text=True, capture_output=True, timeout=300)
    assert refused.returncode == 2
    assert refused.stderr == "error: --data: nowhere is no folder; give the one with the videos\n"
