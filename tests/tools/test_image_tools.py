"""tools/test_robustness.py, run as a user runs it."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from image_models import pictures, small_model
from PIL import Image

from data_pipelines.classes import class_names
from lookupvivit.evaluation.robustness import ALEXNET_ERRORS

ROOT = Path(__file__).parents[2]
CLASSES = ("n01", "n02")


@pytest.fixture
def robustness(shell):
    def run(*arguments, expect=0):
        return shell([sys.executable, str(ROOT / "tools" / "test_robustness.py"), *map(str, arguments)], expect=expect)

    return run


@pytest.fixture(scope="module")
def corrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "imagenet-c"
    for number, name in enumerate(ALEXNET_ERRORS):
        for severity in range(1, 6):
            pictures(folder / name / str(severity), CLASSES, 2, seed=5 * number + severity, size=(16, 16))
    return folder


def test_imagenet_c_whole_and_in_part(tmp_path, robustness, corrupted):
    run = small_model(tmp_path / "run", CLASSES)
    clean = pictures(tmp_path / "val", CLASSES, 2)
    told = robustness("--model", run, "--imagenet-c", corrupted, "--imagenet", clean, "--workers", "0")
    results = run / "predictions" / "robustness"
    report = json.loads((results / "robustness.json").read_text())["imagenet_c"]
    table = [line.split() for line in told.splitlines()]
    figures = [f"{100 * share:.1f}" for share in (*report["by_severity"], report["accuracy"], report["mce"])]
    assert [str(run), *figures] in table
    assert [str(run), figures[5], *(["not", "given"] * 3)] in table
    row = report["accuracies"]["fog"]
    fog = [f"{100 * share:.1f}" for share in (*row, np.mean(row), report["errors"]["fog"])]
    assert ["fog", *fog] in table and report["errors"]["fog"] == pytest.approx((1 - np.mean(row)) / 0.819324)
    assert len(list(results.glob("imagenet_c/*.npz"))) == 75
    assert np.asarray(Image.open(results / "feature_deviation.png")).ndim == 3

    partly = tmp_path / "partly"
    for name in ("fog", "snow"):
        (partly / name).mkdir(parents=True)
        for severity in range(1, 6 if name == "fog" else 4):
            (partly / name / str(severity)).symlink_to(corrupted / name / str(severity))
    told = robustness("--model", run, "--imagenet-c", partly, "--output", tmp_path / "other", "--workers", "0")
    table = [line.split() for line in told.splitlines()]
    assert ["fog", *fog[:6], "not", "found"] in table
    assert [str(run), *["not", "found"] * 7] in table
    assert "snow 4, 5; " in told and "NOT FOUND: gaussian_noise 1, 2, 3, 4, 5; " in told
    assert "mce" not in json.loads((tmp_path / "other" / "robustness.json").read_text())["imagenet_c"]


def test_imagenet_a_r_and_o_in_one_table(tmp_path, robustness):
    run = small_model(tmp_path / "run", class_names("imagenet"))
    given = []
    for kind in "aro":
        subset = class_names(f"imagenet_{kind}")
        given += [f"--imagenet-{kind}", pictures(tmp_path / f"imagenet-{kind}", subset, size=(20, 20))]
        if kind == "o":
            given += ["--imagenet", pictures(tmp_path / "val", subset, seed=1, size=(20, 20))]
    told = robustness("--model", run, *given, "--workers", "0")
    report = json.loads((run / "predictions" / "robustness" / "robustness.json").read_text())
    shares = report["imagenet_o"]["aupr"], report["imagenet_r"]["accuracy"], report["imagenet_a"]["accuracy"]
    expected = [str(run), "not", "given", *(f"{100 * share:.1f}" for share in shares)]
    assert expected in [line.split() for line in told.splitlines()]
    assert "NOTE: ImageNet-R has 30,000 pictures as published, 200 were found" in told


def test_mistakes_are_one_line(tmp_path, corrupted, monkeypatch, capsys):
    run = small_model(tmp_path / "run", CLASSES)
    for arguments, status, message in (
        ((), 2, "give the folder of at least one set"),
        (("--imagenet-o", corrupted), 2, "--imagenet-o needs --imagenet DIR"),
        (("--imagenet-a", tmp_path / "nowhere"), 2, f"--imagenet-a: found no folder {tmp_path / 'nowhere'}"),
        (("--imagenet-a", corrupted), "error: imagenet_a: the model must have its WordNet ids as class names", ""),
        (("--imagenet-c", tmp_path), f"error: {tmp_path}: found none of the 15 corruptions", ""),
    ):
        tool = ROOT / "tools" / "test_robustness.py"
        monkeypatch.setattr(sys, "argv", [str(tool), "--model", str(run), *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(tool), run_name="__main__")
        code = stopped.value.code
        assert code == status if isinstance(status, int) else code.startswith(status) and "\n" not in code
        assert message in capsys.readouterr().err
