"""tools/prepare_dataset.py and tools/benchmark_loader.py as programs."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

PREPARE = [sys.executable, str(ROOT / "tools" / "prepare_dataset.py")]
PREPARE += ["--cfg", str(ROOT / "configs" / "camera_motion.yaml"), "--workers", "2"]
BENCHMARK = [sys.executable, str(ROOT / "tools" / "benchmark_loader.py")]


@pytest.fixture
def damaged_set(tmp_path, small_set):
    """The small set with a corrupt training video, 3, and without the validation video 41."""
    root = tmp_path / "the set"
    shutil.copytree(small_set, root)
    (root / "videos" / "3.mp4").write_bytes(b"no video")
    (root / "videos" / "41.mp4").unlink()
    return root


@pytest.mark.cold
def test_a_scan_lists_failed_and_missing_videos(tmp_path, damaged_set, shell):
    output = tmp_path / "prepared"
    printed = shell([*PREPARE, "--output", str(output), f"data.root={damaged_set}"])
    assert "train: 40 videos: 39 ok, 1 failed, 0 missing" in printed
    assert "val: 13 videos: 12 ok, 0 failed, 1 missing" in printed
    assert f"data.skip_list={output / 'skip.txt'}" in printed
    lines = (output / "skip.txt").read_text().splitlines()
    assert [Path(line.split("\t")[0]).stem for line in lines] == ["3", "41"]
    for split, count in (("train", 40), ("val", 13)):
        assert len((output / f"{split}_videos.csv").read_text().splitlines()) == 1 + count


@pytest.mark.slow
def test_training_without_the_failed_videos_and_on_copies(tmp_path, damaged_set, shell, command):
    output = tmp_path / "prepared"
    printed = shell([*PREPARE, "--output", str(output), f"data.root={damaged_set}", "--copies", "--short-side", "32"])
    assert f"data.dataset=kinetics data.root={output} data.train_list=train.csv" in printed
    names = (output / "classes.txt").read_text().splitlines()
    assert len(names) == 10 and names[0] == "Panning left over something"

    settings = [f"data.root={damaged_set}", f"data.skip_list={output / 'skip.txt'}", "data.max_failed=0"]
    printed = shell(command("train_net.py", tmp_path / "run", *settings, "optim.max_steps=1"))
    assert "train: 39 videos" in printed and "FAILED" not in printed

    settings = ["data.dataset=kinetics", f"data.root={output}", "data.camera_motion={}"]
    settings += ["data.crop=32", "data.short_side=32", "optim.max_steps=1"]
    printed = shell(command("train_net.py", tmp_path / "copied", *settings))
    assert "train: 39 videos" in printed
    assert json.loads((tmp_path / "copied" / "model.json").read_text())["class_names"] == names


@pytest.mark.cold
def test_the_benchmark_measures_every_case(small_set, shell):
    videos = [str(small_set / "videos" / f"{number}.mp4") for number in (1, 2)]
    quick = ["--frames", "4", "--stride", "1", "--rounds", "1", "--seconds", "0.2", "--workers", "0", "1"]
    table = shell([*BENCHMARK, *videos, *quick, "--backends", "auto", "decord", "pyav"])
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 16 and all(float(milliseconds) >= 0 for _, milliseconds, _ in rows[1:])
    assert sum("pytorchvideo" in case for case, _, _ in rows) == 2
    assert sum("clips/s" in note and "MB per worker" in note for _, _, note in rows) == 4


@pytest.mark.parametrize("tool", [[*PREPARE, "--output", "unused", "data.root=nowhere"], [*BENCHMARK, "nowhere"]])
def test_missing_data_is_a_one_line_error(tool, shell):
    printed = shell(tool, expect=2)
    assert printed.startswith("error: nowhere") and len(printed.strip().splitlines()) == 1
