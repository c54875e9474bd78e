"""File and class names that are not UTF-8, contain separators of lines, or are as long as file systems permit."""

import json
import os
import sys

import pytest
from support.paths import ROOT
from support.videos import encode

CLASSES = [os.fsdecode(name) for name in (b"b\xe4r", "line\u2028separator".encode(), b"plain")]
SETTINGS = ["data.dataset=folders", "data.camera_motion={}", "augment.flip_labels={}", "data.num_classes=3"]
SETTINGS += ["optim.max_steps=1", "optim.batch_size=2", "data.workers=1", "log.attention_clips=3"]


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / os.fsdecode(b"donn\xe9es")
    for split in ("train", "val"):
        for index, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            encode(tmp_path / "clip.mp4", frames=8)
            (tmp_path / "clip.mp4").rename(root / split / name / f"{index}{'é' * 120}.mp4")
    return root


def test_training_test_prediction_and_attention_maps(tmp_path, dataset, command, shell):
    run = tmp_path / "run"
    settings = [*SETTINGS, f"data.root={dataset}"]
    shell(command("train_net.py", run, *settings))
    shell(command("test_net.py", run, *settings))
    assert json.loads((run / "model.json").read_text())["class_names"] == sorted(CLASSES)
    assert len(list((run / "attention").glob("*.png"))) == 3

    for tool, figures in (("predict.py", 3), ("visualize_attention.py", 6)):
        output = tmp_path / tool
        options = ["--run", str(run), str(dataset / "val"), "--output", str(output)]
        shell([sys.executable, str(ROOT / "tools" / tool), *options])
        assert len([file for file in output.rglob("*") if file.is_file()]) == figures


def test_scanned_videos_are_skipped_by_the_list(tmp_path, dataset, command, shell):
    broken = dataset / "train" / CLASSES[0] / "broken.mp4"
    broken.write_bytes(b"no video")
    prepare = command("prepare_dataset.py", tmp_path / "run", *SETTINGS, f"data.root={dataset}")
    shell([*prepare, "--output", str(tmp_path / "prepared"), "--workers", "1"])
    for root in (dataset, dataset / "train" / ".."):  # the same file by another path
        settings = [*SETTINGS, f"data.root={root}", f"data.skip_list={tmp_path / 'prepared' / 'skip.txt'}"]
        assert "1 skipped by" in shell([*command("train_net.py", tmp_path / "dry", *settings), "--dry-run"])
