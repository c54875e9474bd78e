"""tools/test_robustness.py and tools/few_shot.py on their command lines."""

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
    def run(*arguments):
        tool = str(ROOT / "tools" / "test_robustness.py")
        return shell([sys.executable, tool, *map(str, arguments), "--workers", "0"])

    return run


@pytest.fixture
def failing_tool(monkeypatch, capsys):
    """Run a tool in this process that ends with exit status 2; returns its errors."""

    def run(tool, *arguments):
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        assert exit.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def imagenet_c(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets") / "imagenet-c"
    for number, name in enumerate(ALEXNET_ERRORS):
        for severity in range(1, 6):
            write_images(folder / name / str(severity), CLASSES, 2, seed=5 * number + severity, size=(16, 16))
    return folder


@pytest.fixture(scope="module")
def two_class_run(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("runs") / "run", CLASSES)


def rows_of(output):
    """The words of every line."""
    return [line.split() for line in output.splitlines()]


def percents(values):
    return [f"{100 * value:.1f}" for value in values]


def test_a_complete_imagenet_c(tmp_path, robustness, imagenet_c, two_class_run):
    clean, results = write_images(tmp_path / "val", CLASSES, 2), tmp_path / "results"
    run = two_class_run
    rows = rows_of(robustness("--run", run, "--imagenet-c", imagenet_c, "--imagenet", clean, "--output", results))
    report = json.loads((results / "robustness.json").read_text())["imagenet_c"]
    averages = percents([*report["by_severity"], report["accuracy"], report["mce"]])
    assert [str(run), *averages] in rows  # Table 6
    assert [str(run), averages[5], *["not", "given"] * 3] in rows  # Table 2
    accuracies = report["accuracies"]["fog"]
    assert report["errors"]["fog"] == pytest.approx((1 - np.mean(accuracies)) / ALEXNET_ERRORS["fog"])
    assert ["fog", *percents([*accuracies, np.mean(accuracies), report["errors"]["fog"]])] in rows
    assert len(list(results.glob("imagenet_c/*.npz"))) == 75
    assert np.asarray(Image.open(results / "feature_deviation.png")).ndim == 3


def test_an_incomplete_imagenet_c_is_reported(tmp_path, robustness, imagenet_c, two_class_run):
    incomplete, results = tmp_path / "incomplete", tmp_path / "results"
    (incomplete / "gausian_noise").mkdir(parents=True)  # a typo
    for name, severities in (("fog", (1, 2, 3, 4, 5)), ("snow", (1, 2, 3))):
        (incomplete / name).mkdir()
        for severity in severities:
            (incomplete / name / str(severity)).symlink_to(imagenet_c / name / str(severity))
    output = robustness("--run", two_class_run, "--imagenet-c", incomplete, "--output", results)
    report = json.loads((results / "robustness.json").read_text())["imagenet_c"]
    assert "mce" not in report
    accuracies = report["accuracies"]["fog"]
    assert ["fog", *percents([*accuracies, np.mean(accuracies)]), "not", "found"] in rows_of(output)
    assert [str(two_class_run), *["not", "found"] * 7] in rows_of(output)
    assert "snow 4, 5;" in output and "gaussian_noise 1, 2, 3, 4, 5;" in output and "gausian_noise\n" in output


@pytest.mark.cold
@pytest.mark.slow
def test_imagenet_a_r_and_o_of_two_calls_in_one_table(tmp_path, robustness):
    run = small_model(tmp_path / "run", class_names("imagenet"))
    folders = {
        kind: write_images(tmp_path / kind, class_names(f"imagenet_{kind}"), size=(20, 20)) for kind in ("a", "r", "o")
    }
    validation = write_images(tmp_path / "val", class_names("imagenet_o"), seed=1, size=(20, 20))
    robustness("--run", run, "--imagenet-a", folders["a"])
    second = ("--imagenet-r", folders["r"], "--imagenet-o", folders["o"], "--imagenet", validation)
    output = robustness("--run", run, *second)
    report = json.loads((run / "predictions" / "robustness" / "robustness.json").read_text())
    values = report["imagenet_o"]["aupr"], report["imagenet_r"]["accuracy"], report["imagenet_a"]["accuracy"]
    assert [str(run), "not", "given", *percents(values)] in rows_of(output)
    assert "from earlier calls: ImageNet-A\n" in output
    assert "NOTE: ImageNet-R: found 200 images, published are 30,000" in output


def test_errors_of_the_robustness_tool_are_one_line(tmp_path, imagenet_c, two_class_run, failing_tool):
    for arguments, message in (
        ((), "--imagenet-a"),
        (("--imagenet-o", imagenet_c), "--imagenet-o"),
        (("--imagenet-a", tmp_path / "nowhere"), f"{tmp_path / 'nowhere'}: no such folder"),
        (("--imagenet-a", imagenet_c), "error: imagenet_a: "),
        (("--imagenet-c", tmp_path), f"error: {tmp_path}: "),
    ):
        assert message in failing_tool("test_robustness.py", "--run", two_class_run, *arguments)


@pytest.fixture
def colours(tmp_path):
    """Training and test images of three classes of plain colours, which random features distinguish."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 8)):
        for label, colour in enumerate(((230, 30, 30), (30, 230, 30), (30, 30, 230))):
            folder = tmp_path / split / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 25, (20, 20, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


@pytest.mark.cold
def test_few_shot_transfer(colours, two_class_run, shell, tmp_path):
    file = tmp_path / "results" / "scores.json"
    folders = ("--train", str(colours / "train"), "--test", str(colours / "test"))
    options = ("--shots", "1", "5", "--json", str(file), "--workers", "0")
    output = shell(
        [sys.executable, str(ROOT / "tools" / "few_shot.py"), "--run", str(two_class_run), *folders, *options]
    )
    accuracies = json.loads(file.read_text())["accuracies"]
    assert set(accuracies) == {"1", "5"} and set(accuracies["5"]) == {"0", "1", "2"}
    values = 100 * np.array(list(accuracies["5"].values()))
    assert f"  5 per class: {values.mean():5.1f} % +- {values.std(ddof=1):.1f}" in output
    assert "3 classes, 24 test images" in output
    assert values.mean() > 90


def test_errors_of_the_few_shot_tool_are_one_line(colours, two_class_run, failing_tool):
    arguments = ("--run", two_class_run, "--train", colours / "train", "--test", colours / "test", "--workers", "0")
    error = failing_tool("few_shot.py", *arguments)
    assert error.startswith(f"error: {colours / 'train'}: found 6 images of 'class 0'") and " 25," in error
    (colours / "test" / "class 3").mkdir()
    assert "'class 3'" in failing_tool("few_shot.py", *arguments, "--shots", "1")
