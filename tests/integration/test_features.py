"""tools/features.py by its command line."""

import shutil
import sys

import numpy as np
import pytest
from support.in_process import run_tool
from support.paths import ROOT
from support.saved_models import save_random_model

from lookupvivit.features.folders import load_features


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("models") / "run")


@pytest.fixture
def features(monkeypatch, capsys, run):
    """Run the tool in this process; returns exit status, output and errors."""
    return lambda *arguments: run_tool(monkeypatch, capsys, "features.py", "--run", run, "--workers", 0, *arguments)


def assert_same_features(folder, other):
    one, two = load_features(folder), load_features(other)
    assert one.names == two.names and one.settings == two.settings
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.features, two.features)


def test_files_and_a_dataset_by_its_configuration(tmp_path, small_set, features):
    dataset = ["--cfg", "camera_motion", f"data.root={small_set}", "--split", "train", "--views", "2x1"]
    status, output, _ = features(*dataset, "--output", tmp_path / "train")
    assert status == 0 and f"40 videos in {tmp_path / 'train'}\n" in output
    train = load_features(tmp_path / "train")
    assert len(train.names) == 40 and len(train.class_names) == 10 and set(train.labels.tolist()) <= set(range(10))

    (tmp_path / "corrupt.mp4").write_bytes(b"no video")
    files = [tmp_path / "corrupt.mp4", small_set / "videos"]
    status, output, error = features(*files, "--output", tmp_path / "files", "--views", "2x1", "--blocks", "last")
    assert status == 1 and "53 videos in" in output
    assert error.count("corrupt.mp4") == 1 and error.endswith("1 videos could not be read\n")
    everything = load_features(tmp_path / "files")
    rows = [everything.names.index(name) for name in train.names]
    np.testing.assert_allclose(everything.features[rows], train.features, rtol=1e-4, atol=1e-5)
    assert (everything.labels == -1).all() and everything.settings["blocks"] == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected VIDEO or --cfg FILE"),
        (["a.mp4", "--split", "val"], "argument --split: expected --cfg as well"),
        (
            ["a.mp4", "--blocks", "-1"],
            "argument --blocks: found '-1', expected numbers from 0 such as 0,5,11, last, or",
        ),
        (["nowhere.mp4"], "nowhere.mp4: no such file"),
        (["--cfg", "camera_motion", "nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_errors_in_the_command_are_one_line_with_status_2(tmp_path, features, arguments, message):
    status, _, error = features(*arguments, "--output", tmp_path / "out")
    assert status == 2 and message in error.splitlines()[-1] and not (tmp_path / "out").exists()


def test_a_missing_block_names_the_run(tmp_path, small_set, run, features):
    status, _, error = features(small_set / "videos" / "1.mp4", "--output", tmp_path / "out", "--blocks", "1")
    assert status == 2 and error == f"error: {run}: blocks: found 1, expected 0 to 0\n"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["python", "torchrun 2"])
def test_a_killed_command_continues(tmp_path, small_set, run, shell, signal_when, launcher):
    """Killed after the first files; the second command, on any number of ranks, yields the same features."""
    videos = tmp_path / "videos"
    for copy in range(4):
        shutil.copytree(small_set / "videos", videos / str(copy))
    options = [str(videos), "--run", str(run), "--views", "4x3", "--batch-size", "12"]
    tool = [str(ROOT / "tools" / "features.py"), *options, "--workers", "1", "--output"]
    shell([sys.executable, *tool, str(tmp_path / "one")])

    folder = tmp_path / "two"
    third = folder / "0" / "10.mp4.npz"  # after 1.mp4 and 0.mp4
    status, _ = signal_when(third.exists, [sys.executable, *tool, str(folder)])
    assert status != 0 and len(load_features(folder).names) < 4 * 53
    (folder / ".writing-x").mkdir()  # as a kill during a write may leave it
    (folder / ".writing-x" / "half.npz").write_bytes(b"PK")
    start = [sys.executable]
    if launcher != "python":
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", launcher.split()[1], "--"]
    output = shell([*start, *tool, str(folder)])
    assert "of them by an earlier command" in output and (launcher == "python" or "rank 1 of 2: " in output)
    assert_same_features(tmp_path / "one", folder)
