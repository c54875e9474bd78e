"""The doctor: every check on a healthy machine and on a faulty one."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.paths import ROOT

from data_pipelines.video.decoding_process import decoding_process
from lookupvivit.cli.doctor import communication, gpu, loading, machine, programs, storage, video
from lookupvivit.cli.doctor.report import Check, fail, ok, run_check
from lookupvivit.config.loading import load_config


@pytest.fixture
def replace_module(tmp_path, monkeypatch):
    """A function that hides a module behind one with the given source, here and in child processes."""

    def replace(name: str, source: str) -> None:
        folder = tmp_path / "modules"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)

    yield replace
    decoding_process().kill()  # it has imported the replaced modules


def test_versions():
    assert machine.check_python().mark == machine.check_torch().mark == "ok"
    assert machine.check_python((3, 9, 18)).mark == machine.check_torch("2.10.1+cpu").mark == "fail"
    assert machine.check_torch("3.0.0").mark == "ok"


def test_compiler_that_works_fails_or_is_missing(tmp_path, monkeypatch):
    finding = machine.check_compiler()
    assert finding.mark == "ok" and Path(finding.facts["command"]).is_file()
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho 'fatal error: Python.h: No such file' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(failing))
    finding = machine.check_compiler()
    assert finding.mark == "warn" and "Python.h: No such file" in finding.found and "python3-dev" in finding.advice
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = machine.check_compiler()
    assert finding.mark == "warn" and "runtime.compile" in finding.advice and "g++" in finding.advice


def test_cores_are_compared_with_the_loader_workers():
    assert machine.check_cores(40, ranks=8).mark == "ok"
    assert machine.check_cores(24, ranks=8).advice == "set data.workers=2"


def test_memory_respects_the_limit_of_a_container(tmp_path):
    total, available = machine.memory_sizes(cgroup=tmp_path)
    expected = psutil.virtual_memory()
    assert total == pytest.approx(expected.total / 1e9) and available == pytest.approx(
        expected.available / 1e9, rel=0.2
    )
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("file 300000000\ninactive_file 100000000\n")
    assert machine.memory_sizes(cgroup=tmp_path) == (1.0, 0.4)
    marks = [machine.check_memory(64, available, ranks=1).mark for available in (1, 5, 60)]
    assert marks == ["fail", "warn", "ok"]
    assert machine.check_memory(64, 30, ranks=8).mark == "warn"  # 32 workers


def test_every_installed_backend_reads_the_original_frames(tmp_path):
    checks = video.VideoChecks(tmp_path)
    findings = {name: checks.check(name) for name in video.BACKENDS}
    assert {finding.mark for finding in findings.values()} <= {"ok"}, findings
    assert all("frames" in findings[name].found for name in video.BACKENDS if name not in ("decord", "torchcodec"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('no such codec')", "no such codec"),
        ("import os; os.abort()", "SIGABRT"),
        ("import time; time.sleep(60)", "2 s"),
    ],
)
def test_backend_that_raises_crashes_or_hangs(tmp_path, replace_module, monkeypatch, source, words):
    decoding_process().kill()
    replace_module("decord", source)
    monkeypatch.setattr(video, "SECONDS", 2.0)
    finding = video.VideoChecks(tmp_path).check("decord")
    assert finding.mark == "fail" and words in finding.found and "data.backend=pyav" in finding.advice


def test_backend_that_is_not_installed(tmp_path, monkeypatch):
    checks = video.VideoChecks(tmp_path)
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    assert [checks.check(name).mark for name in ("pyav", "decord", "torchcodec")] == ["fail", "warn", "ok"]


def test_backend_that_reads_other_frames(tmp_path):
    checks = video.VideoChecks(tmp_path)
    frames = checks.original
    shifted = np.concatenate([frames[1:], frames[-1:]])
    assert "requested frame 0, received frame 1" in checks.compare("decord", shifted).found
    assert "(15, 64, 80, 3)" in checks.compare("decord", frames[1:]).found
    assert "20.0 grey levels" in checks.compare("decord", frames + np.uint8(20)).found
    assert checks.compare("torchcodec", shifted).mark == "warn"
    assert checks.compare("pyav", frames).mark == checks.compare("decord", frames).mark == "ok"
    finding = checks.compare("torchcodec", frames + np.uint8(1))
    assert finding.mark == "warn" and finding.facts["difference"] == 1 and "pyav" in finding.found


def test_shared_memory_that_is_small(tmp_path):
    def check(free: float):
        return storage.check_shared_memory(tmp_path, 64e9, free, ranks=1)

    assert check(60e9).mark == "ok"
    assert check(64e6).mark == "fail" and "--shm-size" in check(64e6).advice  # Docker's default
    assert check(200e6).mark == "warn" and "data.workers" in check(200e6).advice


def test_shared_memory_with_files_of_killed_runs(tmp_path):
    stale, mapped = (tmp_path / f"deepspeed_allreduce_buffer_0_127.0.0.1_29500_{rank}" for rank in (0, 1))
    stale.write_bytes(bytes(10**6))
    mapped.write_bytes(bytes(10**6))
    code = "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(mapped)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert storage.stale_files(tmp_path) == [stale]
        process.communicate(b"\n")
    finding = storage.check_shared_memory(tmp_path, 64e9, 60e9, ranks=1)
    assert finding.mark == "warn" and finding.facts["stale_files"] == 2 and stale.exists()
    os.utime(stale, (0, 0))
    subprocess.run(finding.advice.partition("  (")[0], shell=True, check=True)
    assert not stale.exists() and mapped.exists(), "the command deletes files older than ten minutes only"


def test_output_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "WRITE_BYTES", 8 * 2**20)
    finding = storage.check_output_disk(tmp_path / "runs" / "one")
    assert finding.mark in ("ok", "warn") and finding.facts["bytes"] == 8 * 2**20
    assert finding.facts["write_mb_s"] > 0 and str(tmp_path) in finding.found and not list(tmp_path.iterdir())
    assert "cannot be written" in storage.check_output_disk(Path("/proc/runs")).found
    (tmp_path / "file").write_bytes(b"x" * 1000)
    assert storage.check_output_disk(tmp_path / "file").mark == "fail"
    monkeypatch.setattr(storage, "SLOW_WRITE", 1e9)
    monkeypatch.setattr(storage, "LOW_SPACE", 0.0)
    assert "log.checkpoint_every_epochs" in storage.check_output_disk(tmp_path).advice
    monkeypatch.setattr(storage, "LOW_SPACE", 1e9)
    assert "log.keep_checkpoints" in storage.check_output_disk(tmp_path).advice


def test_data_disk(tmp_path, monkeypatch):
    assert storage.check_data_disk(tmp_path).mark == "fail"
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(10**6))
    finding = storage.check_data_disk(tmp_path)
    assert (finding.mark, finding.facts["files"], finding.facts["bytes"]) == ("ok", 3, 3 * 10**6)
    monkeypatch.setattr(storage, "SLOW_READ", 1e9)
    monkeypatch.setattr(storage, "SLOW_FILES", 1e9)
    assert "--copies" in storage.check_data_disk(tmp_path).advice


def test_cuda():
    h100 = gpu.Device("H100", 80.0, 79.0, (9, 0), True)
    occupied = gpu.Device("H100", 80.0, 20.0, (9, 0), True)
    v100 = gpu.Device("V100", 32.0, 31.0, (7, 0), False)
    assert gpu.check_cuda([], None) == ok("no GPU: CPU only", devices=[])
    finding = gpu.check_cuda([], "570.1", build=None)
    assert finding.mark == "fail" and "without CUDA" in finding.found
    finding = gpu.check_cuda([h100, h100], "570.1")
    assert finding.mark == "ok" and "2 GPUs" in finding.found
    assert "fp16" in gpu.check_cuda([v100], "570.1").advice
    assert "nvidia-smi" in gpu.check_cuda([occupied], "570.1").advice


@pytest.mark.parametrize(
    ("status", "output", "mark", "words"),
    [
        (0, '{"version": "3.8", "difference": 1e-5}', "ok", "3.8"),
        (0, '{"version": "3.8", "difference": 0.5}', "fail", "0.5"),
        (-11, "RuntimeError: message", "fail", "signal SIGSEGV (RuntimeError: message)"),
        (None, "", "fail", "3 s"),
    ],
)
def test_kernels(monkeypatch, status, output, mark, words):
    monkeypatch.setattr(programs, "run", lambda *_: programs.Outcome(status, output, 3.0))
    finding = gpu.check_kernels(has_gpu=True)
    assert finding.mark == mark and words in finding.found
    assert gpu.check_kernels(has_gpu=False).mark == "ok"


def test_check_that_raises_fails_and_is_printed_on_one_line():
    result = run_check(Check("raises", lambda: 1 / 0))
    assert result.finding.mark == "fail" and "ZeroDivisionError: division by zero" in result.line(8)
    assert "\n" not in run_check(Check("two", lambda: fail("one\ntwo", "three\nfour"))).line(3)


def test_program_is_killed_with_its_descendants_at_its_time_limit(tmp_path):
    child = "import os,sys,time; open(sys.argv[1],'w').write(str(os.getpid())); time.sleep(600)"
    parent = "import subprocess,sys; subprocess.run([sys.executable,'-c',*sys.argv[1:]],start_new_session=True)"
    outcome = programs.run(parent, 10.0, child, str(tmp_path / "pid"))
    assert outcome.status is None and re.fullmatch(r"was stopped after \d+ s", outcome.ending)
    process_id = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 120  # only so that a failure ends the test
    while psutil.pid_exists(process_id) and psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_deepspeed_that_cannot_be_imported(replace_module):
    replace_module("deepspeed", "raise ImportError('torch is too old')")
    finding = communication.check_deepspeed()
    assert finding.mark == "fail" and "torch is too old" in finding.found and "pip install" in finding.advice


def test_deepspeed_that_takes_too_long_needs_no_other_version(replace_module):
    replace_module("deepspeed", "import time; time.sleep(600)")
    finding = communication.check_deepspeed(limit=1.0)
    assert finding.mark == "fail" and "was stopped after" in finding.found and "pip" not in finding.advice


@pytest.mark.slow
def test_ranks_that_hang_or_exit(replace_module):
    replace_module("sitecustomize", "import os, time\nif 'RANK' in os.environ: time.sleep(600)")
    finding = communication.check_ranks(gpus=0, limit=8.0)
    assert finding.mark == "fail" and "8 s" in finding.found and "GLOO_SOCKET_IFNAME" in finding.advice
    exits = "import os\nif 'RANK' in os.environ: os.write(2, b'error: no route to host\\n'); os._exit(1)"
    replace_module("sitecustomize", exits)
    finding = communication.check_ranks(gpus=0)
    assert finding.mark == "fail" and "exit status 1 (error: no route to host)" in finding.found


def test_ranks_that_compute_a_wrong_sum(monkeypatch):
    outcome = programs.Outcome(0, '{"correct": false, "mb_per_second": 1.0, "ranks": 2}', 1.0)
    monkeypatch.setattr(programs, "run", lambda *_: outcome)
    finding = communication.check_ranks(gpus=2)
    assert finding.mark == "fail" and "wrong sum" in finding.found and "NCCL_DEBUG" in finding.advice


@pytest.mark.slow
def test_tool(tmp_path):
    (tmp_path / "video.mp4").write_bytes(bytes(1000))
    command = [sys.executable, str(ROOT / "tools" / "doctor.py"), "--output", str(tmp_path), "--data", str(tmp_path)]
    completed = subprocess.run(command, text=True, capture_output=True, timeout=300)
    *lines, summary = completed.stdout.splitlines()
    failed = [line for line in lines if line.split()[0] not in ("ok", "warn")]
    assert completed.returncode == bool(failed), completed.stdout + completed.stderr
    assert f"{len(failed)} failed" in summary
    # On a machine under load, these may lack time or memory.
    assert all(any(name in line for name in ("ranks", "DeepSpeed", "memory")) for line in failed), failed
    assert "Traceback" not in completed.stderr and os.listdir(tmp_path) == ["video.mp4"]


@pytest.mark.slow
def test_tool_on_a_faulty_machine(tmp_path):
    (tmp_path / "deepspeed.py").write_text("raise ImportError('torch is too old')")
    command = [sys.executable, str(ROOT / "tools" / "doctor.py"), "--json", "--output", str(tmp_path)]
    python_path = f"{tmp_path}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": python_path}
    completed = subprocess.run(command, text=True, capture_output=True, timeout=300, env=environment)
    marks = {check["name"]: check["mark"] for check in json.loads(completed.stdout)["checks"]}
    assert completed.returncode == 1 and marks["DeepSpeed"] == marks["ranks"] == "fail"
    assert marks["C++ compiler"] == "warn" and marks["video: pyav"] == "ok"


def test_tool_with_a_folder_that_does_not_exist():
    command = [sys.executable, str(ROOT / "tools" / "doctor.py"), "--data", "nowhere"]
    completed = subprocess.run(command, text=True, capture_output=True, timeout=300)
    assert completed.returncode == 2
    assert completed.stderr.startswith("error: --data: found nowhere") and completed.stderr.count("\n") == 1


def test_cores_that_a_device_needs(small_set, monkeypatch):
    """A device of exactly the speed for 7.5 times what a core loads needs eight cores."""
    config = load_config("camera_motion", [f"data.root={small_set}", "model.name=vivit_pico8x2"])
    monkeypatch.setattr(loading, "clips_per_core", lambda dataset, seconds: float(len(dataset)))
    vivit_macs = 56_000_000
    monkeypatch.setattr(loading, "training_macs", lambda model, shape: vivit_macs)
    flops = 7.5 * 40 * 2 * vivit_macs / loading.UTILIZATION
    monkeypatch.setattr(loading, "peak_flops", lambda device, dtype: (flops, "data sheet"))
    finding = loading.check_loading(config, cores=16, ranks=2)
    assert finding.mark == "ok" and finding.facts["cores_per_device"] == 8
    finding = loading.check_loading(config, cores=15.5, ranks=2)
    assert finding.mark == "warn" and "found 7.75 per rank" in finding.advice and "on_device" in finding.advice


def test_loading_is_measured_and_missing_videos_are_a_failure(small_set, tmp_path, capsys):
    config = load_config("camera_motion", [f"data.root={small_set}"])
    finding = loading.check_loading(config, cores=1e9, ranks=1)
    assert finding.mark == "ok" and finding.facts["loaded_per_core"] > 0 and finding.facts["trained_per_device"] > 0
    missing = load_config("camera_motion", [f"data.root={tmp_path}"])
    finding = loading.check_loading(missing, 2, 1)
    assert finding.mark == "fail" and str(tmp_path) in finding.found
    assert capsys.readouterr().out == ""
