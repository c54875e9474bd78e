"""Runs on two machines, which are two names of this one, started in every documented way."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from support.paths import ROOT
from support.runs import free_port, log_records

from lookupvivit.config import ConfigError
from lookupvivit.training import distributed

BIN = Path(sys.executable).parent
SETTINGS = ("optim.max_steps=4", "runtime.zero_stage=2", "log.checkpoint_every_epochs=0.4")  # every 2 steps
STAND_INS = {
    # pdsh -S -f N -w host1,host2 COMMAND...: the words go to a shell on each, %n is the host's number
    "pdsh": """import subprocess, sys
hosts = sys.argv[sys.argv.index("-w") + 1].split(",")
command = " ".join(sys.argv[sys.argv.index("-w") + 2:])
runs = [subprocess.Popen(["bash", "-c", command.replace("%n", str(n))]) for n in range(len(hosts))]
sys.exit(max(run.wait() for run in runs))""",
    "ssh": "print('reached')",
    "scontrol": "print('localhost\\n127.0.0.1') if sys.argv[1:3] == ['show', 'hostnames'] else print(sys.argv[1:])",
    # two nodes of one task each; what Slurm signals, it signals to the tasks
    "srun": """import os, pathlib, signal, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words.pop(0)
tasks = [{"SLURM_PROCID": str(n), "SLURM_LOCALID": "0", "SLURM_NTASKS": "2"} for n in (0, 1)]
runs = [subprocess.Popen(words, env={**os.environ, **task}) for task in tasks]
signal.signal(signal.SIGUSR1, lambda number, frame: [run.send_signal(number) for run in runs])
pathlib.Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
sys.exit(max(run.wait() for run in runs))""",
}


@pytest.fixture
def machines(tmp_path):
    """Run commands side by side, one per machine, to their ends; (exit statuses, outputs)."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, source in STAND_INS.items():
        (programs / name).write_text(f"#!{sys.executable}\nimport sys\n{source}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "hosts").write_text("localhost slots=1\n127.0.0.1 slots=1\n")
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_SIZE"}
    environment |= {"SLURM_JOB_NODELIST": "two", "SLURM_JOB_ID": "17", "PID_FILE": str(tmp_path / "srun_pid")}
    environment["PATH"] = f"{programs}{os.pathsep}{BIN}{os.pathsep}{environment['PATH']}"

    def run(*commands, folders=(ROOT, ROOT), **variables):
        started = [
            subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, **variables},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for command, folder in zip(commands, folders, strict=False)
        ]
        try:
            outputs = [process.communicate(timeout=300)[0] for process in started]
        finally:
            for process in started:
                process.kill()
        return [process.returncode for process in started], outputs

    return run


@pytest.fixture
def one_machine(tmp_path_factory, command, shell):
    """The run that all others must equal; the first test that needs it trains it."""
    run = tmp_path_factory.getbasetemp() / "one_machine"
    if not run.exists():
        shell(command("train_net.py", run, *SETTINGS, launcher="torchrun 2"))
    return run


def no_ssh(tmp_path, tool):
    master = ["--master_addr", "127.0.0.1", "--master_port", free_port()]
    start = [str(BIN / "deepspeed"), "--hostfile", str(tmp_path / "hosts"), "--no_ssh", *master]
    return [[*start, "--node_rank", node, *tool] for node in "01"]


def torchrun(tmp_path, tool):
    master = ["--master_addr", "127.0.0.1", "--master_port", free_port()]
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *master]
    return [[*start, "--node_rank", node, *tool] for node in "01"]


def rendezvous(tmp_path, tool):
    meet = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free_port()}", "--rdzv_id", "anything"]
    return [[sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", *meet, *tool]] * 2


def pdsh(tmp_path, tool):
    start = [str(BIN / "deepspeed"), "--hostfile", str(tmp_path / "hosts"), "--master_addr", "127.0.0.1"]
    return [[*start, "--master_port", free_port(), *tool]]


def slurm(tmp_path, tool):
    """The documented script, with this run's command and port."""
    (script,) = re.findall(
        r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", (ROOT / "docs" / "TRAINING.md").read_text(), re.DOTALL
    )
    inner = " ".join(f'"{word}"' for word in tool)
    assert not set(inner) & set("'$`\\")
    replaced = script.replace("tools/train_net.py --cfg configs/k400_9x9x8.yaml", inner).replace("29500", free_port())
    assert replaced.count(inner) == 1
    (tmp_path / "job.sh").write_text(replaced)
    return [["bash", str(tmp_path / "job.sh")]]


def comparable_records(run, kind="train"):
    drop = ("clips_per_second", "data_wait", "mfu", "memory")
    return [{k: v for k, v in record.items() if k not in drop} for record in log_records(run, kind)]


@pytest.mark.slow
@pytest.mark.parametrize("start", [no_ssh, torchrun, rendezvous, pdsh, slurm])
def test_two_machines_equal_one_with_two_ranks(tmp_path, command, one_machine, machines, start):
    one, two = one_machine, tmp_path / "two"
    tool = command("train_net.py", two, *SETTINGS)[1:]
    statuses, outputs = machines(*start(tmp_path, tool))
    assert not any(statuses), outputs
    assert "2 ranks" in "".join(outputs) and sum(output.count("starting from scratch") for output in outputs) == 1

    weights, others = (load_file(run / "model.safetensors") for run in (one, two))
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
    assert comparable_records(one) == comparable_records(two) and len(comparable_records(two)) == 4  # logged once
    assert comparable_records(one, "val") == comparable_records(two, "val")
    assert len(list((two / "tensorboard").iterdir())) == 1
    kept = [sorted(file.name for file in (run / "checkpoints" / "step_00000004").rglob("*")) for run in (one, two)]
    assert kept[0] == kept[1] and sum("zero_pp_rank" in name for name in kept[1]) == 2  # one shard per rank
    assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}

    statuses, outputs = machines(*start(tmp_path, [*tool, "optim.max_steps=5"]))
    assert not any(statuses) and "resuming from step 4 of 5" in "".join(outputs), outputs


@pytest.mark.slow
def test_slurm_requeues_a_job_that_saved(tmp_path, command, machines):
    run, pid = tmp_path / "run", tmp_path / "srun_pid"
    (job,) = slurm(tmp_path, command("train_net.py", run, "optim.max_steps=100000")[1:])

    def announce_the_end():
        while not (run / "log.jsonl").exists():
            time.sleep(0.1)
        os.kill(int(pid.read_text()), signal.SIGUSR1)

    threading.Thread(target=announce_the_end, daemon=True).start()
    statuses, (output,) = machines(job)
    assert statuses == [75] and "['requeue', '17']" in output, output
    (step,) = set(re.findall(r"saved step (\d+) of 100000", output))
    assert (run / "checkpoints" / f"step_{int(step):08d}").is_dir()


@pytest.mark.slow
def test_folders_and_videos_that_machines_do_not_share_are_errors(tmp_path, command, machines, small_set):
    """The same relative path leads to another folder on each machine."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    tool = command("train_net.py", Path("run"))[1:]
    statuses, outputs = machines(*torchrun(tmp_path, tool), folders=(here, there))
    assert all(statuses) and "error (rank 0): output_dir: some rank does not see" in outputs[0]
    assert f"does not see what rank 0 writes into {there / 'run'}; set a folder" in outputs[1]
    assert not list((here / "run").iterdir()) and not (there / "run").exists()

    for folder in (here, there):
        (folder / "set").symlink_to(small_set) if folder == here else copy_without(small_set, folder / "set", "7.mp4")
    tool = command(
        "train_net.py", tmp_path / "run", "data.dataset=something_something", "data.camera_motion={}", "data.root=set"
    )[1:]
    statuses, outputs = machines(*torchrun(tmp_path, tool), folders=(here, there))
    assert all(statuses) and "data.root: not every rank found the 40 videos of rank 0 (train" in outputs[0], outputs
    assert "data.root: found 39 videos on rank" in outputs[1] and "the 40 of rank 0" in outputs[1]


def copy_without(source: Path, target: Path, name: str) -> None:
    for file in source.rglob("*"):
        if file.is_file() and file.name != name:
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(source)).symlink_to(file)


@pytest.mark.slow
def test_local_size_does_not_enable_shared_memory_collectives(machines):
    """DeepSpeed would create buffers for two ranks with LOCAL_SIZE=2, and two machines would wait for them."""
    look = "from lookupvivit.training import distributed; w = distributed.start(1); "
    look += "found = open('/proc/self/maps').read().count('deepspeed_allreduce'); "
    look += "print(f'buffers {found}'); w.barrier(); distributed.stop()"  # one string: ranks print concurrently
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    statuses, outputs = machines([*start, sys.executable, "-c", look], LOCAL_SIZE="2")
    assert statuses == [0] and outputs[0].count("buffers 0") == 2, outputs


def test_the_local_rank_selects_the_device(monkeypatch):
    """The second rank of the third machine with two GPUs each; calls to torch are recorded, as there may be no GPU."""
    import deepspeed

    places = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    chosen, joined = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(deepspeed, "init_distributed", lambda **settings: joined.append(settings["dist_backend"]))
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    monkeypatch.setattr(dist, "get_world_size", lambda: 6)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: None)
    monkeypatch.setattr(distributed, "FailureWatch", lambda store, rank: None)
    assert distributed.start() == distributed.World(5, 6, torch.device("cuda", 1))
    assert chosen == [1] and joined == ["nccl"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="launcher: found local rank 2"):
        distributed.start()
