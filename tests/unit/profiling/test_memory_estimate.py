"""The memory estimate beside what autograd saves and beside what a training process really takes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lookupvivit import kernels
from lookupvivit.cli.dry_run import memory
from lookupvivit.config.loading import load_config
from lookupvivit.layers.activation_checkpointing import set_activation_checkpointing
from lookupvivit.models.registry import create_model
from lookupvivit.profiling.measured_memory import kept_bytes
from lookupvivit.profiling.memory_estimate import trace
from lookupvivit.training.build import build_model, build_on_meta
from lookupvivit.training.data import Batching
from lookupvivit.training.distributed import World


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["lookupvivit_pico8x2_4x4x4", "vivit_pico8x2"])
def test_what_autograd_saves(name, checkpointing, dtype):
    """The storages that autograd packs in a real pass, those of weights and video left out."""
    shape = (2, 3, 8, 64, 64)
    model = create_model(name, 10, depth=2).to(dtype).train()
    traced = trace(model, shape, dtype, checkpointing)
    set_activation_checkpointing(model, checkpointing)
    video = torch.randn(shape, dtype=dtype)
    saved = kept_bytes(lambda: model(video), (video, *model.parameters()))
    assert saved <= traced.saved <= saved + 4096  # the trace holds logits and loss besides
    gradients = dtype.itemsize * sum(parameter.numel() for parameter in model.parameters())
    assert traced.peak >= max(gradients, traced.saved)


@pytest.mark.parametrize(("device", "engine"), [("cpu", "auto"), ("cuda", "reference")])
def test_few_compressed_tokens_are_traced_as_their_device_exchanges(device, engine):
    """A CPU folds projections for 2x2x2 of 4x8x8 tokens, which keeps other tensors; a GPU does not."""
    shape, size = (2, 3, 8, 64, 64), (2, 2, 2)
    model = create_model("lookupvivit_pico8x2_4x4x4", 10, depth=2).train()
    traced = trace(model, shape, torch.float32, device=device, compressed_size=size)
    video = torch.randn(shape)
    with kernels.use(engine):
        saved = kept_bytes(lambda: model(video, size), (video, *model.parameters()))
    assert saved <= traced.saved <= saved + 4096


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
PICTURES = """
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
def test_what_training_takes(tmp_path, overrides):
    """Peak resident memory of three steps above that after the imports, of models of 50 and 57 M parameters."""
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(8):
                picture = noise.integers(0, 256, (230, 230, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / "set" / split / name / f"{i}.png")
    (tmp_path / "run.yaml").write_text(PICTURES.format(root=tmp_path / "set", run=tmp_path / "run"))
    config = load_config(tmp_path / "run.yaml", overrides)
    batching = Batching.of(config, World(0, 1, torch.device("cpu")))
    expected = memory(build_on_meta(lambda: build_model(config)), config, batching, "cpu").peak
    # Every tensor of 64 KiB goes back to the system when it is freed; else malloc's own losses would be measured.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "run.yaml"), *overrides],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = int(done.stdout.partition("MEASURED")[2])
    print(f"estimate {expected / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB, {expected / measured:.3f}")
    assert expected == pytest.approx(measured, rel=0.15)
