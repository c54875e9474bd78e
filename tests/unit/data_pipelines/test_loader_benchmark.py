"""The CPU time that the loader benchmark reports."""

import os
import subprocess
import sys

import pytest

from data_pipelines.loader_benchmark import cpu_seconds


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_cpu_time_includes_children():
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(time.process_time(), flush=True); input()"
    start = cpu_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        spent = float(child.stdout.readline())
        assert cpu_seconds(child.pid) > spent - 0.05  # counted in ticks of the system's clock
        assert cpu_seconds(os.getpid()) - start > spent - 0.05
        child.communicate(b"\n")
