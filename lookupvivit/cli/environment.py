"""Environment variables that must be set before torch is imported. Values that the user has set stay."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from data_pipelines.io.cores import num_workers


def set_threading(environment: MutableMapping[str, str], cores: int | None = None) -> None:
    """Let OpenMP's threads sleep while they wait, and use the cores of this process only.

    Waiting threads spin by default. On a shared machine, they then take the core from the thread that they wait for,
    and a step can take ten times as long. The number of threads is torch's choice (one per core) unless a container's
    quota or other ranks on the same machine leave fewer cores.

    Args:
        environment: `os.environ`, or that of a process to start.
        cores: that the process may use; by default the cores of this process.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & environment.keys():
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    share = (num_workers() if cores is None else cores) // int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if share < (os.cpu_count() or 1):
        environment.setdefault("OMP_NUM_THREADS", str(max(1, share)))
