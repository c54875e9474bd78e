"""tools/test_robustness.py and tools/few_shot.py, by their command lines."""

import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image
from support.image_models import small_model, write_images
from support.paths import ROOT

from data_pipelines.datasets.class_names import class_names
from lookupvivit.robustness.metrics import ALEXNET_ERRORS

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
            write_images(folder / name / str(severity), CLASSES, 2, seed=5 * number + severity, size=(16, 16))
    return folder


def test_imagenet_c_whole_and_in_part(tmp_path, robustness, corrupted):
    run = small_model(tmp_path / "run", CLASSES)
    clean = write_images(tmp_path / "val", CLASSES, 2)
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
    (partly / "gausian_noise").mkdir(parents=True)
    for name in ("fog", "snow"):
        (partly / name).mkdir()
        for severity in range(1, 6 if name == "fog" else 4):
            (partly / name / str(severity)).symlink_to(corrupted / name / str(severity))
    told = robustness("--model", run, "--imagenet-c", partly, "--output", tmp_path / "other", "--workers", "0")
    table = [line.split() for line in told.splitlines()]
    assert ["fog", *fog[:6], "not", "found"] in table
    assert [str(run), *["not", "found"] * 7] in table
    assert "snow 4, 5; " in told and "NOT FOUND: gaussian_noise 1, 2, 3, 4, 5; " in told
    assert "NOTE: folders of other names, not looked at: gausian_noise" in told
    assert "mce" not in json.loads((tmp_path / "other" / "robustness.json").read_text())["imagenet_c"]


@pytest.mark.cold
def test_imagenet_a_r_and_o_in_one_table(tmp_path, robustness):
    run = small_model(tmp_path / "run", class_names("imagenet"))
    given = {}
    for kind in "aro":
        subset = class_names(f"imagenet_{kind}")
        given[kind] = [f"--imagenet-{kind}", write_images(tmp_path / f"imagenet-{kind}", subset, size=(20, 20))]
        if kind == "o":
            given[kind] += ["--imagenet", write_images(tmp_path / "val", subset, seed=1, size=(20, 20))]
    robustness("--model", run, *given["a"], "--workers", "0")
    told = robustness("--model", run, *given["r"], *given["o"], "--workers", "0")  # joins the one before
    report = json.loads((run / "predictions" / "robustness" / "robustness.json").read_text())
    shares = report["imagenet_o"]["aupr"], report["imagenet_r"]["accuracy"], report["imagenet_a"]["accuracy"]
    expected = [str(run), "not", "given", *(f"{100 * share:.1f}" for share in shares)]
    assert expected in [line.split() for line in told.splitlines()]
    assert "\nfrom earlier calls: ImageNet-A\n" in told
    assert "NOTE: ImageNet-R has 30,000 pictures as published, 200 were found" in told


def test_mistakes_are_one_line(tmp_path, corrupted, monkeypatch, capsys):
    run = small_model(tmp_path / "run", CLASSES)
    for arguments, status, message in (
        ((), 2, "give the folder of at least one set"),
        (("--imagenet-o", corrupted), 2, "--imagenet-o needs --imagenet DIR"),
        (("--imagenet-a", tmp_path / "nowhere"), 2, f"--imagenet-a: found no folder {tmp_path / 'nowhere'}"),
        (("--imagenet-a", corrupted), 2, "error: imagenet_a: the model must have its WordNet ids as class names"),
        (("--imagenet-c", tmp_path), 2, f"error: {tmp_path}: found none of the 15 corruptions"),
    ):
        assert stopped(monkeypatch, "test_robustness.py", "--model", run, *arguments) == status
        assert message in capsys.readouterr().err


def stopped(monkeypatch, tool, *arguments):
    """The exit status of a tool that gives up."""
    monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    return leaving.value.code


@pytest.mark.cold
def test_few_shot_of_any_labelled_pictures(tmp_path, shell, monkeypatch, capsys):
    """Three classes of plain colours: what a random model's features tell apart, a probe of few shots does too."""
    run, rng = small_model(tmp_path / "run", ("a", "b")), np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 8)):
        for label, colour in enumerate(((230, 30, 30), (30, 230, 30), (30, 30, 230))):
            folder = tmp_path / split / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 25, (20, 20, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    sets = ("--model", str(run), "--train", str(tmp_path / "train"), "--test", str(tmp_path / "test"), "--workers", "0")
    file = tmp_path / "told" / "scores.json"
    told = shell([sys.executable, str(ROOT / "tools" / "few_shot.py"), *sets, "--shots", "1", "5", "--json", str(file)])
    scores = json.loads(file.read_text())["accuracies"]
    assert set(scores) == {"1", "5"} and set(scores["5"]) == {"0", "1", "2"}
    mean, spread = 100 * np.mean(list(scores["5"].values())), 100 * np.std(list(scores["5"].values()), ddof=1)
    assert f"  5 per class: {mean:5.1f} % +- {spread:.1f}" in told and "3 classes, 24 pictures to test on" in told
    assert mean > 90

    assert stopped(monkeypatch, "few_shot.py", *sets) == 2
    message = f"error: {tmp_path / 'train'}: found 6 pictures of 'class 0', must be at least 25"
    assert capsys.readouterr().err.startswith(message)
    (tmp_path / "test" / "class 3").mkdir()
    assert stopped(monkeypatch, "few_shot.py", *sets, "--shots", "1") == 2
    assert "found the folder 'class 3' (1 unknown)" in capsys.readouterr().err
