"""tools/prepare_dataset.py and tools/benchmark_loader.py, by their command lines."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

CAMERA_MOTION = ("--cfg", str(ROOT / "configs" / "camera_motion.yaml"))


@pytest.mark.cold
@pytest.mark.slow
def test_prepare_tells_what_is_broken_and_a_run_leaves_it_out(tmp_path, small_set, shell, command):
    root, output = tmp_path / "the set", tmp_path / "prepared"
    shutil.copytree(small_set, root)
    (root / "videos" / "3.mp4").write_bytes(b"no video")
    (root / "videos" / "41.mp4").unlink()
    tool = [sys.executable, str(ROOT / "tools" / "prepare_dataset.py"), *CAMERA_MOTION, "--output", str(output)]
    prepare = [*tool, f"data.root={root}"]
    told = shell([*prepare, "--workers", "2"])
    assert "train: 40 videos: 39 ok, 1 broken, 0 missing" in told
    assert "val: 13 videos: 12 ok, 0 broken, 1 missing" in told
    skip = (output / "skip.txt").read_text().splitlines()
    assert [Path(line.split("\t")[0]).stem for line in skip] == ["3", "41"]
    told = shell(
        command(
            "train_net.py",
            tmp_path / "run",
            f"data.root={root}",
            f"data.skip_list={output / 'skip.txt'}",
            "optim.max_steps=1",
            "data.max_failed=0",
        )
    )
    assert "train: 39 videos" in told and "1 skipped by" in told and "BROKEN" not in told

    told = shell([*prepare, "--copies", "--short-side", "32", "--workers", "2"])
    assert f"data.dataset=kinetics data.root={output} data.train_list=train.csv" in told
    names = (output / "classes.txt").read_text().splitlines()
    assert len(names) == 10 and names[0] == "Panning left over something"
    told = shell(
        command(
            "train_net.py",
            tmp_path / "copied",
            "data.dataset=kinetics",
            f"data.root={output}",
            "data.camera_motion={}",
            "data.crop=32",
            "data.short_side=32",
            "optim.max_steps=1",
        )
    )
    assert "train: 39 videos" in told
    description = json.loads((tmp_path / "copied" / "model.json").read_text())
    assert description["class_names"] == names

    told = shell([*tool, "data.root=nowhere"], expect=2)
    assert told.startswith("error: nowhere") and "Traceback" not in told


@pytest.mark.cold
def test_the_benchmark_measures_every_case(small_set, shell):
    videos = [str(small_set / "videos" / f"{number}.mp4") for number in (1, 2)]
    tool = [sys.executable, str(ROOT / "tools" / "benchmark_loader.py")]
    few = ["--frames", "4", "--stride", "1", "--rounds", "1", "--seconds", "0.2", "--workers", "0", "1"]
    told = shell([*tool, *videos, *few, "--backends", "auto", "decord", "pyav"])
    rows = [line.split("|")[1:4] for line in told.splitlines() if line.startswith("| ")]
    assert len(rows) == 16 and all(float(ms) >= 0 for _, ms, _ in rows[1:])
    assert sum("pytorchvideo" in what for what, _, _ in rows) == 2
    assert sum("clips/s" in note and "MB per worker" in note for _, _, note in rows) == 4
    told = shell([*tool, "nowhere.mp4"], expect=2)
    assert told.strip() == "error: nowhere.mp4: no such video file"
