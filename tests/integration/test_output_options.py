"""Every tool checks the paths that it will write to before it starts to work."""

import argparse
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from support.in_process import run_tool
from support.paths import ROOT
from support.saved_models import save_random_model

from lookupvivit.cli.arguments import output_file, output_folder
from lookupvivit.evaluation.stored_predictions import Predictions

TOOLS = sorted(file.name for file in (ROOT / "tools").glob("*.py"))
OUTPUTS = {
    "benchmark.py": {"--json": output_file},
    "caption.py": {"--json": output_file, "--output": output_folder},
    "cost_accuracy.py": {"--output": output_folder},
    "export.py": {"--onnx": output_file},
    "features.py": {"--output": output_folder},
    "few_shot.py": {"--json": output_file},
    "gpu_report.py": {"--output": output_folder},
    "object_attention.py": {"--output": output_folder},
    "predict.py": {"--csv": output_file, "--json": output_file, "--output": output_folder},
    "probe.py": {"--json": output_file},
    "prepare_dataset.py": {"--output": output_folder},
    "static_footage.py": {"--output": output_folder},
    "test_camera_motion.py": {"--output": output_folder},
    "test_robustness.py": {"--output": output_folder},
    "visualize_attention.py": {"--output": output_folder, "--tensorboard": output_folder},
}
INPUTS = {
    "FILE",
    "FEATURES",
    "--run",
    "--model",
    "--train",
    "--test",
    "--score",
    "--root",
    "--data",
    "OLD_RUN",
    "--imagenet",
    "--dataset",
    "--labels",
    "--masks",
}
INPUTS |= {f"--imagenet-{letter}" for letter in "acor"}
CHECKED_BY_A_CHECK = {"doctor.py": {"--output"}}  # the check of the output disk is its result


def save_predictions(file: Path) -> None:
    """Save the predictions of a 1x1 test of two videos."""
    Predictions(
        video_names=np.array(["a.mp4", "b.mp4"]),
        labels=np.arange(2),
        logits=np.eye(2, dtype=np.float32).reshape(2, 1, 1, 2),
        classifiers=("both",),
        clip_index=[0],
        aug_index=[1],
        frame_indices=np.zeros((2, 1, 4)),
        boxes=np.zeros((2, 1, 3)),
        class_names=("left", "right"),
        facts={},
    ).save(file)


class ParserReached(Exception):
    pass


@pytest.fixture
def parser_of(monkeypatch):
    """The argument parser of a tool."""

    def parse(parser, *_):
        raise ParserReached(parser)

    def find(tool):
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
        monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", parse)
        monkeypatch.setattr(sys, "argv", [tool])
        with pytest.raises(ParserReached) as reached:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        return reached.value.args[0]

    return find


@pytest.mark.parametrize("tool", TOOLS)
def test_every_option_that_takes_a_path_is_an_input_or_a_checked_output(parser_of, tool):
    """An option that is neither listed here as an input nor checked is an output that nobody checks."""
    options = {}
    for action in parser_of(tool)._actions:
        name = action.option_strings[0] if action.option_strings else (action.metavar or action.dest).upper()
        if action.type in (Path, output_file, output_folder):
            options[name] = action.type
    unchecked = {name for name, type in options.items() if type is Path}
    assert unchecked - INPUTS == CHECKED_BY_A_CHECK.get(tool, set())
    assert {name: type for name, type in options.items() if name not in unchecked} == OUTPUTS.get(tool, {})


@pytest.mark.parametrize(("tool", "option"), [(tool, option) for tool in OUTPUTS for option in OUTPUTS[tool]])
def test_an_output_that_cannot_be_written_is_the_first_error(tmp_path, monkeypatch, capsys, tool, option):
    """The command is otherwise incomplete, so that an error of anything that is read later would show."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    in_the_way = tmp_path / ("folder" if OUTPUTS[tool][option] is output_file else "file")
    for path in (in_the_way, tmp_path / "file" / "below" / "x", tmp_path / ("n" * 300)):
        status, _, error = run_tool(monkeypatch, capsys, tool, option, path)
        assert status == 2
        assert f"error: argument {option}: {path}: " in error.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]
    assert not any((tmp_path / "folder").iterdir())


@pytest.mark.parametrize(
    ("tool", "arguments", "folder"),
    [
        ("cost_accuracy.py", ["--run", "RUN"], "cost_accuracy"),
        ("caption.py", ["--run", "RUN", "--score", "nowhere"], "predictions"),
        ("test_robustness.py", ["--run", "RUN", "--imagenet-a", "."], "predictions/robustness"),
        ("test_net.py", ["--cfg", "RUN/config.yaml"], "predictions"),
        ("test_net.py", ["--cfg", "RUN/config.yaml", "output_dir=RUN/file"], "file"),
        ("train_net.py", ["--cfg", "RUN/config.yaml", "output_dir=RUN/file"], "file"),
    ],
)
def test_default_outputs_are_checked_before_the_data(tmp_path, monkeypatch, capsys, tool, arguments, folder):
    """A file is where the folder of the results would be; the dataset does not exist."""
    run = save_random_model(tmp_path / "run")
    (run / "file").touch()
    (run / "config.yaml").write_text(
        f"model: {{name: lookupvivit_pico8x2_4x4x4}}\noutput_dir: {run}\ncheckpoint: {run}\n"
        f"data: {{dataset: folders, root: {tmp_path / 'nowhere'}, num_classes: 2}}\n"
    )
    blocked = run / Path(folder).parts[0]
    blocked.touch()
    arguments = [str(argument).replace("RUN", str(run)) for argument in arguments]
    status, _, error = run_tool(monkeypatch, capsys, tool, *arguments)
    assert status == 2, error
    assert error.count("\n") == 1 and str(run / folder) in error and "expected a folder" in error


def test_a_study_checks_its_folder_before_its_variants(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    study = tmp_path / "study.yaml"
    study.write_text(f"title: t\nbase: nowhere.yaml\noutput_dir: {tmp_path / 'file'}\nvariants: {{a: {{}}}}\n")
    status, _, error = run_tool(monkeypatch, capsys, "study.py", study)
    assert (status, error) == (2, f"error: output_dir: {tmp_path / 'file'}: found a file, expected a folder\n")


def test_aggregate_checks_the_files_next_to_its_input(tmp_path, monkeypatch, capsys):
    save_predictions(tmp_path / "4x3.npz")
    for ending in ("_confusion.png", "_classes.csv"):
        blocked = tmp_path / f"4x3_as_1x1_both_logits{ending}"
        blocked.mkdir()
        status, output, _ = run_tool(monkeypatch, capsys, "aggregate.py", tmp_path / "4x3.npz", "--clips", "1")
        assert status == f"error: {blocked}: found a folder, expected a file" and not output
        assert sorted(tmp_path.iterdir()) == sorted([blocked, tmp_path / "4x3.npz"])
        blocked.rmdir()
