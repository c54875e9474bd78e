"""The CPU time that the loader benchmark reports."""

import subprocess
import sys

import pytest

from data_pipelines.loader_benchmark import cpu_seconds

WORK = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {WORK!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), end="", flush=True)
input()
child.communicate(b"\\n")
print("ended", flush=True)
input()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_cpu_time_includes_running_and_ended_children():
    """The child states its CPU time; the kernel counts it in ticks of 10 ms."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        spent = float(parent.stdout.readline())
        assert cpu_seconds(parent.pid) > spent - 0.05
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == b"ended\n"
        assert cpu_seconds(parent.pid) > spent - 0.05
        parent.communicate(b"\n")
