"""tools/prepare_dataset.py and tools/benchmark_loader.py as programs."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from lookupvivit.cli.prepare import settings_of_lists
from lookupvivit.config.loading import load_config
from lookupvivit.training.manifests import present_videos

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
    advised = printed.split("To train on the copies:")[1].splitlines()[0]
    names = (output / "classes.txt").read_text().splitlines()
    assert len(names) == 10 and names[0] == "Panning left over something"

    settings = [f"data.root={damaged_set}", f"data.skip_list={output / 'skip.txt'}", "data.max_failed=0"]
    printed = shell(command("train_net.py", tmp_path / "run", *settings, "optim.max_steps=1"))
    assert "train: 39 videos" in printed and "FAILED" not in printed

    settings = [*advised.split(), "data.camera_motion={}"]  # which the command sets
    settings += ["data.crop=32", "data.short_side=32", "optim.max_steps=1"]
    printed = shell(command("train_net.py", tmp_path / "copied", *settings))
    assert "train: 39 videos" in printed
    assert json.loads((tmp_path / "copied" / "model.json").read_text())["class_names"] == names


def test_copies_of_class_folders_are_class_folders(tmp_path, small_set, shell):
    """Unless a class has no readable video: the lists of the copies keep its name."""
    root = tmp_path / "mine"
    for number, name in enumerate(("train/cat/1.mp4", "train/dog/2.mp4", "val/cat/3.mp4", "val/dog/4.mp4"), start=1):
        (root / name).parent.mkdir(parents=True)
        shutil.copy(small_set / "videos" / f"{number}.mp4", root / name)
    settings = ["data.dataset=folders", f"data.root={root}", "data.num_classes=2", "data.camera_motion={}"]
    settings += ["augment.flip_labels={}"]
    for case, dataset in (("complete", "folders"), ("incomplete", "kinetics")):
        output = tmp_path / case
        printed = shell([*PREPARE, "--output", str(output), "--copies", "--short-side", "32", *settings])
        advised = printed.split("To train on the copies:")[1].splitlines()[0].split()
        config = load_config(str(ROOT / "configs" / "camera_motion.yaml"), [*settings, *advised])
        assert config.data.dataset == dataset
        train, val = (present_videos(config, split, verbose=False) for split in ("train", "val"))
        assert train.class_names == val.class_names == ("cat", "dog")
        assert all(Path(path).is_relative_to(output / "videos") for path in (*train.paths, *val.paths))
        assert (train.labels.tolist(), val.labels.tolist()) == ([0, 1], [0, 1] if case == "complete" else [0])
        (root / "val" / "dog" / "4.mp4").write_bytes(b"no video")
    for place in (root / "train", root / "val" / "copies"):
        refused = shell([*PREPARE, "--output", str(place), "--copies", *settings], expect=2)
        assert re.fullmatch(r"error: --output: found .*, in a folder of classes \(.*\); .*\n", refused)
        assert not (place / "videos").exists()
    only_val = shell([*PREPARE, *settings, "--output", str(tmp_path / "val"), "--copies", "--splits", "val"])
    assert "To test on the copies:" in only_val and "train.csv" not in only_val


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ucf101", ["data.fold=2"]),
        ("camera_motion", ["data.camera_motion={train_videos: 4}"]),
        ("k400_9x9x8", ["data.separator=;"]),
    ],
)
def test_the_settings_of_copies_fit_the_configuration(name, settings):
    """Keys that only the original layout has would be errors."""
    config = str(ROOT / "configs" / f"{name}.yaml")
    advised = settings_of_lists(load_config(config, settings).data, Path("copies"), ("train", "val")).split()
    data = load_config(config, [*settings, *advised]).data
    assert (data.dataset, data.root, data.separator, data.camera_motion) == ("kinetics", "copies", None, {})


@pytest.mark.slow
@pytest.mark.cold
def test_the_benchmark_measures_every_case(small_set, shell):
    videos = [str(small_set / "videos" / f"{number}.mp4") for number in (1, 2)]
    quick = ["--frames", "4", "--stride", "1", "--rounds", "1", "--seconds", "0.2", "--workers", "0", "1"]
    table = shell([*BENCHMARK, *videos, *quick, "--backends", "auto", "decord", "pyav"])
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 20 and all(float(milliseconds) >= 0 for _, milliseconds, _ in rows[1:])
    assert sum("pytorchvideo" in case for case, _, _ in rows) == 2
    assert sum("clips/s" in note and "MB per worker" in note for _, _, note in rows) == 8


@pytest.mark.parametrize("tool", [[*PREPARE, "data.root=nowhere", "--output", "{}"], [*BENCHMARK, "nowhere"]])
def test_missing_data_is_a_one_line_error(tool, shell, tmp_path):
    printed = shell([word.format(tmp_path / "unused") for word in tool], expect=2)
    assert printed.startswith("error: nowhere") and len(printed.strip().splitlines()) == 1
