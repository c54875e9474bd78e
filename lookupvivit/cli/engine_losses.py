"""Losses and peak memory of a few training steps of one batch, by precision and ZeRO stage, as JSON lines.

Uses the engine of training on one rank, with random clips instead of data. `lookupvivit.profiling.gpu_report` starts it
in a process of its own, with CONFIG STEPS PRECISION:STAGE ... key=value ...
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from lookupvivit.cli.dry_run import clip_shape, memory_of_rank
from lookupvivit.config.loading import load_config
from lookupvivit.profiling.gpu_report.state import describe_error
from lookupvivit.training import distributed
from lookupvivit.training.build import build_model
from lookupvivit.training.deepspeed_engine import initialize
from lookupvivit.training.schedule import Batching


def main() -> None:
    """The new process; its arguments are in ``sys.argv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("steps", type=int)
    parser.add_argument("runs", nargs="+", metavar="PRECISION:STAGE or key=value")
    arguments = parser.parse_args()
    overrides = [text for text in arguments.runs if "=" in text]
    world = distributed.start()
    for run in (text for text in arguments.runs if "=" not in text):
        try:
            precision, stage = run.split(":")
            result = train(arguments.config, arguments.steps, precision, stage, overrides, world)
        except Exception as error:  # one stage that fails does not end the others
            result = {"error": describe_error(error)}
        print(json.dumps({"run": run, **result}), flush=True)


def train(
    name: str, steps: int, precision: str, stage: str, overrides: Sequence[str], world: distributed.World
) -> dict[str, Any]:
    """Train one batch.

    Returns:
        ``losses`` of every step, ``peak_bytes`` allocated on a GPU (else None), and the dry run's ``estimated_bytes``.
    """
    config = load_config(name, [*overrides, f"runtime.precision={precision}", f"runtime.zero_stage={stage}"])
    batching = Batching.from_config(config, world)
    torch.manual_seed(0)
    model = build_model(config)
    estimate = memory_of_rank(model, config, batching, world.device.type)
    on_gpu = world.device.type == "cuda"
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    engine, _ = initialize(model, config, batching, world)
    dtype = next(engine.parameters()).dtype
    video = torch.rand(clip_shape(config, batching.micro_batch), generator=torch.Generator().manual_seed(1)) * 2 - 1
    video = video.to(world.device, dtype)
    targets = torch.arange(len(video), device=world.device) % config.num_classes
    losses = []
    engine.train()
    for _ in range(steps):
        output = engine(video)
        loss = torch.stack([F.cross_entropy(output[field].float(), targets) for field in model.supervised]).sum()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else None
    engine.destroy()
    return {"losses": losses, "peak_bytes": peak, "estimated_bytes": estimate.peak}
