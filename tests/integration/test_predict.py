"""tools/predict.py by its command line."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.in_process import run_tool
from support.paths import ROOT
from support.saved_models import VIDEO_PREPROCESSING, save_random_model

from lookupvivit.visualization import prediction_figure

DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("models") / "run")


@pytest.fixture
def predict(monkeypatch, capsys, run):
    """Run the tool in this process; returns exit status, output and errors."""
    return lambda *arguments, run=run: run_tool(monkeypatch, capsys, "predict.py", "--run", run, *arguments)


@pytest.mark.cold
def test_readable_files_are_reported_and_the_others_named(tmp_path, small_set, run, shell):
    """A folder with videos of 8 frames, an image, a corrupt file and a text file."""
    clips = tmp_path / "clips"
    (clips / "sub").mkdir(parents=True)
    shutil.copy(small_set / "videos" / "1.mp4", clips / "one.mp4")
    shutil.copy(small_set / "videos" / "2.mp4", clips / "sub" / "日本 #2.mp4")
    Image.fromarray(np.zeros((90, 70, 3), np.uint8)).save(clips / "a.png")
    (clips / "corrupt.mp4").write_bytes(b"no video")
    (clips / "notes.txt").touch()
    options = ["--window", "0.1", "--top", "2", "--compressed-size", "1x2x2"]
    options += [
        "--output",
        tmp_path / "figures",
        "--json",
        tmp_path / "p.json",
        "--csv",
        tmp_path / "p.csv",
        "--logits",
    ]
    command = [sys.executable, ROOT / "tools" / "predict.py", clips, "--model", run, *options]  # --run's earlier name
    output = shell([str(argument) for argument in command], expect=1)
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "corrupt.mp4" in error and "Traceback" not in output
    assert "1 files ignored" in output and "1 of 4 files" in output
    figures = {str(file.relative_to(tmp_path / "figures")) for file in (tmp_path / "figures").rglob("*.png")}
    assert figures == {"one.mp4.png", "a.png.png", "sub/日本 #2.mp4.png"}

    report = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert (report["model"], report["views"]) == (str(run), "4x3")
    videos = {Path(video["path"]).name: video for video in report["videos"]}
    assert videos["corrupt.mp4"]["error"] in error
    assert "timeline" not in videos["a.png"]
    timeline = videos["one.mp4"]["timeline"]
    assert timeline[0]["start"] == 0 and len(timeline) > 2 and all(len(clip["top"]) == 2 for clip in timeline)
    for video in ("a.png", "one.mp4"):
        best = videos[video]["top"][0]
        line = next(line for line in output.splitlines() if f"{100 * best['probability']:.1f} %" in line)
        assert line.endswith(best["class"])
    rows = {Path(row["path"]).name: row for row in csv.DictReader((tmp_path / "p.csv").open(encoding="utf-8"))}
    assert list(rows) == [Path(video["path"]).name for video in report["videos"]]
    for name, video in videos.items():
        if name == "corrupt.mp4":
            assert rows[name]["error"] == video["error"] and "logits" not in video
        else:
            assert rows[name]["class_1"] == video["top"][0]["class"] and rows[name]["error"] == ""
            logits = [float(value) for column, value in rows[name].items() if column.startswith("logit: ")]
            assert logits == video["logits"] and len(logits) > 2
    assert "3 of 4 files predicted" in output


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["nowhere.mp4"], ["nowhere.mp4"]),
        (["--views", "4x2"], ["--views", "'4x2'"]),
        (["--window", "0"], ["--window", "'0'"]),
        (["--compressed-size", "4,4"], ["--compressed-size", "'4,4'", "TxHxW"]),
        (["--device", "gpu"], ["--device", "'gpu'"]),
        (["--logits"], ["--logits", "--json", "--csv"]),
        (["--run", ROOT / "README.md"], ["README.md"]),
    ],
)
def test_errors_in_the_command_are_one_line_with_status_2(small_set, predict, arguments, facts):
    status, _, error = predict(small_set / "videos" / "1.mp4", *arguments)
    assert status == 2 and "Traceback" not in error
    assert all(fact in error.splitlines()[-1] for fact in facts)


def test_a_first_result_needs_no_compiler_figures_or_training(small_set, run):
    """Each of these packages takes up to seconds to import."""
    heavy = ["deepspeed", "matplotlib", "sympy", "tensorboard", "torch._dynamo", "torchvision"]
    code = f"""
import sys
from lookupvivit.cli.predict import main
sys.argv[1:] = [{str(small_set / "videos" / "1.mp4")!r}, "--run", {str(run)!r}]
try:
    main()
except SystemExit as exit:
    print(exit.code, [name for name in {heavy} if name in sys.modules])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "0 []"


def test_figures_of_equal_file_names_name_the_folder(tmp_path, small_set, predict, monkeypatch):
    for folder, number in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        shutil.copy(small_set / "videos" / f"{number}.mp4", tmp_path / folder / "clip.mp4")
    titles = []
    figure = prediction_figure.prediction_figure
    monkeypatch.setattr(
        prediction_figure,
        "prediction_figure",
        lambda *arguments, **options: titles.append(arguments[4]) or figure(*arguments, **options),
    )
    status, _, _ = predict(tmp_path / "one", tmp_path / "two", "--output", tmp_path / "figures", "--views", "1x1")
    files = {str(file.relative_to(tmp_path / "figures")) for file in (tmp_path / "figures").rglob("*.png")}
    assert status == 0 and files == {"one/clip.mp4.png", "two/clip.mp4.png"}
    assert titles == ["one/clip.mp4", "two/clip.mp4"]


def test_a_late_failure_loses_no_result(tmp_path, small_set, predict):
    """The figure of the second of three videos cannot be written."""
    videos = [small_set / "videos" / f"{number}.mp4" for number in (1, 2, 3)]
    (tmp_path / "2.mp4.png").mkdir()
    options = ["--output", tmp_path, "--json", tmp_path / "p.json", "--views", "1x1"]
    status, output, error = predict(*videos, *options)
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1
    reports = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["videos"]
    assert [report["path"] for report in reports] == [str(video) for video in videos[:2]]
    assert str(videos[1]) in output and (tmp_path / "1.mp4.png").is_file()


def test_an_empty_folder_is_an_error(tmp_path, predict):
    status, _, error = predict(tmp_path)
    assert status == 2 and error.startswith(f"error: {tmp_path}") and error.count("\n") == 1


@pytest.mark.parametrize("key", ["preprocessing", "crop"])
def test_a_model_without_preprocessing_is_an_error_that_names_the_run(tmp_path, small_set, run, predict, key):
    shutil.copytree(run, tmp_path / "incomplete")
    file = tmp_path / "incomplete" / "model.json"
    description = json.loads(file.read_text(encoding="utf-8"))
    if key == "preprocessing":
        del description[key]
    else:
        description["preprocessing"] = {k: v for k, v in VIDEO_PREPROCESSING.items() if k != key}
    file.write_text(json.dumps(description))
    status, _, error = predict(small_set / "videos" / "1.mp4", run=tmp_path / "incomplete")
    assert status == 2 and error.count("\n") == 1
    assert error.startswith(f"error: {tmp_path / 'incomplete'}: ") and key in error


@pytest.mark.skipif(not (DATA / "awkward").is_dir(), reason="needs the sample files of ../shared/data")
def test_unusual_files_have_a_figure_or_an_error(tmp_path, predict):
    files = sorted(file.name for file in (DATA / "awkward").iterdir())
    status, _, errors = predict(DATA / "awkward", "--output", tmp_path, "--views", "1x1")
    failed = [name for name in files if f"error: {DATA / 'awkward' / name}: " in errors]
    assert {f"{name}.png" for name in files if name not in failed} == {file.name for file in tmp_path.iterdir()}
    assert status == 1 and "empty.mp4" in failed and "one_frame.mp4" not in failed
