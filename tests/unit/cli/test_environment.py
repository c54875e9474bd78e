"""Threads of OpenMP, before torch is imported."""

import subprocess
import sys

import pytest

from data_pipelines.io.cores import usable_cores
from lookupvivit.cli.environment import set_threading


@pytest.mark.parametrize("setting", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}, {"OMP_NUM_THREADS": "3"}])
def test_settings_of_the_user_stay(setting):
    environment = dict(setting)
    set_threading(environment, cores=1)
    assert setting.items() <= environment.items()
    assert ("OMP_WAIT_POLICY" in environment) == ("GOMP_SPINCOUNT" not in setting)


def test_ranks_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    for ranks, cores, threads in (("4", 16, "4"), ("32", 16, "1"), ("1", 3, "3")):
        environment = {"LOCAL_WORLD_SIZE": ranks}
        set_threading(environment, cores)
        assert environment["OMP_NUM_THREADS"] == threads
    environment = {}
    set_threading(environment, cores=16)
    assert "OMP_NUM_THREADS" not in environment and environment["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(("content", "cores"), [("150000 100000", 1.5), ("max 100000", None), ("", None)])
def test_a_container_s_quota_limits_the_cores(tmp_path, monkeypatch, content, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(content)
    assert usable_cores(tmp_path) == (cores or 8)


def test_tools_prepare_the_environment_before_torch_is_imported():
    code = "import lookupvivit.cli, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {"PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["PASSIVE", "False"]
