"""A trained model on another dataset of the user: class folders of images, without splits."""

import json
import sys

import pytest
import torch
from support.image_models import SIDE, logits_one_by_one, write_images
from support.paths import ROOT

from lookupvivit.config.loading import load_config, to_yaml
from lookupvivit.evaluation.run_summary import summarize_run
from lookupvivit.training.build import build_model, classifier_description
from lookupvivit.weights.files import save_model

NAMES = ("cat", "dog")
SETTINGS = (
    "model.name=lookupvit_ti16_3x3",
    "model.overrides={width: 16, depth: 1, num_heads: 2, tubelet: [1, 8, 8], compressed_size: [1, 1, 1]}",
    "data.dataset=folders",
    "data.root=nowhere",
    "data.num_classes=2",
    f"data.crop={SIDE}",
    "data.short_side=20",
    "data.workers=0",
    "eval.clips=1",
    "eval.crops=1",
    "runtime.precision=fp32",
    "runtime.threads=1",
)


@pytest.fixture
def run(tmp_path):
    """A run directory with a configuration and a model whose classifiers are random."""
    run = tmp_path / "run"
    config = load_config(str(ROOT / "configs" / "imagenet_5x5.yaml"), [*SETTINGS, f"output_dir={run}"])
    torch.manual_seed(0)
    model = build_model(config)
    for classifier in (model.compressed_head, model.lookup_head):
        torch.nn.init.normal_(classifier.weight)
    save_model(run, model.state_dict(), classifier_description(config, NAMES))
    (run / "config.yaml").write_text(to_yaml(config))
    return run


def test_class_folders_without_splits_are_tested_with_the_configuration_of_a_run(tmp_path, run, shell):
    """Nothing calls the images videos, and two classes have no top-5 accuracy."""
    folder = write_images(tmp_path / "mine", NAMES, count=3)
    tool, config = str(ROOT / "tools" / "test_net.py"), str(run / "config.yaml")
    output = shell([sys.executable, tool, "--cfg", config, f"data.root={folder}"])
    files = sorted(folder.glob("*/*.JPEG"))
    correct = (logits_one_by_one(run, files).argmax(axis=1) == [0, 0, 0, 1, 1, 1]).sum()
    assert f"val: 6 images from {folder}" in output and f"({correct} of 6" in output
    for text in (output, summarize_run(run)):
        assert "top-1" in text and "video" not in text and "top-5" not in text
    scores = json.loads((run / "predictions" / "1x1.json").read_text())["views"]["1x1"]
    assert scores["top1_correct"] == correct and "top5" not in scores


@pytest.mark.slow
def test_training_messages_call_images_images(tmp_path, run, shell):
    root = tmp_path / "mine"
    for split in ("train", "val"):
        write_images(root / split, NAMES, count=8)
    (root / "train" / "dog" / "3.JPEG").write_bytes(b"no image")
    settings = [
        f"data.root={root}",
        f"output_dir={tmp_path / 'trained'}",
        "optim.batch_size=8",
        "optim.micro_batch_size=8",
    ]
    settings += ["data.max_failed=0.5"]
    settings += ["optim.max_steps=2", "optim.warmup_epochs=0", "log.every=1", "log.attention_clips=1"]
    tool, config = str(ROOT / "tools" / "train_net.py"), str(run / "config.yaml")
    output = shell([sys.executable, tool, "--cfg", config, *settings])
    assert "train: 16 images" in output and "FAILED, replaced by another image: " in output
    assert "val top-1" in output and "top-5" not in output
    records = [json.loads(line) for line in (tmp_path / "trained" / "log.jsonl").read_text().splitlines()]
    assert all("top5" not in record for record in records) and any("top1" in record for record in records)
