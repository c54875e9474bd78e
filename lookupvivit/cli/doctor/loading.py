"""Check whether the cores load clips as fast as the model of a configuration can train on them."""

from __future__ import annotations

import contextlib
import io
import math
import time

import numpy as np
import torch

from data_pipelines.datasets.clips import ClipDataset
from data_pipelines.io.errors import DataError
from lookupvivit.cli.doctor.report import Finding, fail, ok, warn
from lookupvivit.config import ConfigError, RunConfig
from lookupvivit.profiling.device_flops import peak_flops
from lookupvivit.profiling.dtypes import DTYPES
from lookupvivit.training.build import build_model, build_on_meta
from lookupvivit.training.data import train_dataset
from lookupvivit.training.manifests import present_videos
from lookupvivit.training.utilization import training_macs

UTILIZATION = 0.4  # MFU of a well-tuned training run; logs have that of a run
SECONDS = 5.0  # of loading


def check_loading(config: RunConfig, cores: float, ranks: int) -> Finding:
    """Compare the clips per second that a core loads with those that a device trains on.

    Args:
        config: of a classification run; its training videos must be there.
        cores: usable cores of this machine.
        ranks: of a run on this machine, one per device.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = train_dataset(config, present_videos(config, "train"))
    except (ConfigError, DataError) as error:
        return fail(str(error), "check the settings of data")
    loaded = clips_per_core(dataset, SECONDS)
    trained, device = clips_per_device(config)
    needed = math.ceil(trained / loaded)
    found = (
        f"a core loads {loaded:.3g} clips/s; {config.model.name} takes {trained:.3g} clips/s on {device} at "
        f"{100 * UTILIZATION:.0f} % MFU; cores needed per rank: {needed}"
    )
    facts = {"loaded_per_core": loaded, "trained_per_device": trained, "cores_per_device": needed, "mfu": UTILIZATION}
    if needed * ranks <= cores:
        return ok(found, **facts)
    advice = f"found {cores / ranks:g} per rank; set data.workers to that number"
    if not config.augment.on_device:
        advice += ", and try augment.on_device=true"
    return warn(found, f"{advice}; prepared copies load faster (tools/prepare_dataset.py --copies)", **facts)


def clips_per_core(dataset: ClipDataset, seconds: float) -> float:
    """Load random clips as a worker does, for ``seconds`` or until each video was read."""
    threads, count = torch.get_num_threads(), 0
    order = np.random.default_rng(0).permutation(len(dataset))
    torch.set_num_threads(1)
    try:
        dataset[0, int(order[0])]  # starts the decoding process
        start = time.perf_counter()
        for index in order:
            count += len(dataset[0, int(index)])
            if time.perf_counter() - start >= seconds:
                break
        return count / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)


def clips_per_device(config: RunConfig) -> tuple[float, str]:
    """Clips per second of training at `UTILIZATION`, and the name of the device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    model = build_on_meta(lambda: build_model(config))
    macs = training_macs(model, (1, 3, config.data.frames, config.data.crop, config.data.crop))
    return UTILIZATION * peak_flops(device, DTYPES[config.runtime.precision])[0] / (2 * macs), name
