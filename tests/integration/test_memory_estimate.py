"""The estimated memory of a training step against the peak resident memory of training processes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lookupvivit.cli.dry_run import memory_of_rank
from lookupvivit.config.loading import load_config
from lookupvivit.training.build import build_model, build_on_meta
from lookupvivit.training.distributed import World
from lookupvivit.training.schedule import Batching

MEASURE = """
import sys
import av, deepspeed, torch, torch.utils.tensorboard
from lookupvivit.training import distributed, trainer
from lookupvivit.config.loading import load_config
config = load_config(sys.argv[1], sys.argv[2:])
distributed.start(1)
def memory(key):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])
before = memory("VmRSS")
trainer.train(config)
print("MEASURED", memory("VmHWM") - before)
"""
CONFIG = """
output_dir: {run}
model: {{name: vit_b16}}
data: {{dataset: folders, root: {root}, num_classes: 2, frames: 1, stride: 1, short_side: 224, workers: 0,
        decode_seconds: 0}}
augment: {{scale_jitter: null, color_jitter: 0, grayscale: 0}}
optim: {{name: sgd, lr: 0.001, batch_size: 8, max_steps: 3}}
runtime: {{precision: fp32, zero_stage: 0, threads: 1}}
log: {{validate_every_epochs: 0, checkpoint_every_epochs: 0, attention_every_epochs: 0}}
"""
VIT = "model.overrides={depth: 7}"
LOOKUPVIT = ("model.name=lookupvit_b16_5x5", "model.overrides={depth: 5}")


def write_images(root):
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for i in range(8):
                image = noise.integers(0, 256, (230, 230, 3), dtype=np.uint8)
                Image.fromarray(image).save(root / split / name / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (VIT, "runtime.activation_checkpointing=true"),
        (VIT, "runtime.zero_stage=1", "optim.name=adamw"),
        (*LOOKUPVIT, "optim.name=adamw"),
        (*LOOKUPVIT, "runtime.zero_stage=1"),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_estimate_and_measurement_of_three_training_steps(tmp_path, overrides):
    """Models of 50 and 57 M parameters; measured above the memory after the imports."""
    write_images(tmp_path / "set")
    (tmp_path / "run.yaml").write_text(CONFIG.format(root=tmp_path / "set", run=tmp_path / "run"))
    config = load_config(tmp_path / "run.yaml", overrides)
    batching = Batching.from_config(config, World(0, 1, torch.device("cpu")))
    expected = memory_of_rank(build_on_meta(lambda: build_model(config)), config, batching, "cpu").peak
    # malloc returns tensors of 64 KiB and more to the system; otherwise its fragmentation would be measured.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "run.yaml"), *overrides],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    measured = int(process.stdout.partition("MEASURED")[2])
    print(f"estimate {expected / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB, {expected / measured:.3f}")
    assert expected == pytest.approx(measured, rel=0.15)
