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


def test_a_name_of_several_lines_is_one_failure(tmp_path, dataset, command, shell):
    name = "unreadable\nvideo \x1b[31m.mp4"
    (dataset / "train" / "plain" / name).write_bytes(b"no video")
    run, settings = tmp_path / "run", [*SETTINGS, f"data.root={dataset}", "data.max_failed=1", "optim.batch_size=4"]
    shell(command("train_net.py", run, *settings))
    (line,) = (run / "failed_videos.txt").read_text().splitlines()
    assert "plain/unreadable\\nvideo \\x1b[31m.mp4: cannot be decoded" in line
    options = ["--run", str(run), str(dataset / "train" / "plain")]
    printed = shell([sys.executable, str(ROOT / "tools" / "predict.py"), *options], 1)
    assert "error: " in printed and "\x1b[31m" not in printed and "unreadable\\nvideo" in printed


def test_names_with_separators_of_lists_cost_one_video_at_most(tmp_path, dataset, command, shell):
    folder = dataset / "train" / "plain"
    (video,) = folder.iterdir()
    for name in ("a\tb.mp4", "c\nd.mp4", '"e".mp4'):
        (folder / name).write_bytes(b"no video")
    for name in ("a", "f\ng"):  # the first is the start of an unreadable video's name
        (folder / f"{name}.mp4").write_bytes(video.read_bytes())
    prepared = tmp_path / "prepared"
    prepare = command("prepare_dataset.py", tmp_path / "run", *SETTINGS, f"data.root={dataset}")
    printed = shell([*prepare, "--output", str(prepared), "--workers", "1", "--copies"])
    assert "f\\ng.mp4: not in " in printed and f"data.root={prepared}" in printed
    assert (prepared / "train.csv").read_bytes().count(b"\n") == 4
    settings = [*SETTINGS, f"data.root={dataset}", f"data.skip_list={prepared / 'skip.txt'}"]
    assert "3 skipped by" in shell([*command("train_net.py", tmp_path / "dry", *settings), "--dry-run"])
