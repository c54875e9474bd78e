"""Evaluation of camera motion models: labels, parts of videos, names of classes, and counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.in_process import run_tool
from torch import Tensor, nn

from data_pipelines.datasets.camera_motion.encoding import Encoding, write_video
from data_pipelines.io.errors import DataError
from lookupvivit.camera_motion.classes import CLASS_NAMES, RENDERED_NAMES, class_ids
from lookupvivit.camera_motion.evaluation import evaluate
from lookupvivit.camera_motion.report import to_markdown
from lookupvivit.camera_motion.video_sets import labelled_set
from lookupvivit.errors import UserError
from lookupvivit.models.outputs import ModelOutput

FPS = 10
ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]  # of the classes in the logits of `BrightnessModel`


class BrightnessModel(nn.Module):
    """Answers with class k for clips with a mean grey level of 25 k."""

    num_classes = 10

    def __init__(self, names: tuple[str, ...] = RENDERED_NAMES) -> None:
        super().__init__()
        self.description = {
            "class_names": [names[k] for k in ORDER],
            "preprocessing": {"frames": 4, "stride": 1, "short_side": 16, "crop": 16, "range": [-1, 1]},
        }

    def forward(self, clips: Tensor) -> ModelOutput:
        level = (clips.mean((1, 2, 3, 4)) + 1) * 127.5 / 25  # (B,)
        return ModelOutput(logits=-(level[:, None] - torch.tensor(ORDER)).abs())


def write_grey(file: Path, classes: list[int]) -> None:
    """A second of grey frames for each class."""
    levels = np.repeat([25 * k for k in classes], FPS).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 16, 16, 3))
    write_video(file, np.ascontiguousarray(frames), Encoding(fps=FPS))


def labels(folder: Path, *rows: str) -> Path:
    file = folder / "labels.csv"
    file.write_text("\n".join(["path,start,end,class", *rows]), encoding="utf-8")
    return file


@pytest.mark.parametrize("names", [RENDERED_NAMES, CLASS_NAMES])
def test_videos_and_their_parts_are_counted_by_their_labels(tmp_path, names):
    write_grey(tmp_path / "a.mp4", [2, 7])
    write_grey(tmp_path / "b.mp4", [4])
    rows = ("a.mp4,0,1,tilt up", "a.mp4,1,2,rotate counter-clockwise", "a.mp4,1.4,1.5,pan left", "b.mp4,,,zoom in")
    videos = labelled_set(labels(tmp_path, *rows))
    (result,) = evaluate(BrightnessModel(names), "model", videos, [None], (1, 1), torch.device("cpu"))
    assert result.predictions == (2, 7, 7, 4)
    report = result.to_dict()
    assert report["top1"] == 75 and report["videos"] == 4
    assert report["confusion"]["pan left"] == {"rotate counter-clockwise": 1}
    assert report["class_top1"]["zoom in"] == {"videos": 1, "top1": 100}
    table = to_markdown([result], "machine")
    assert "| 4 | 75.0 | 30.1 to 95.4 |" in table  # Wilson's interval by statsmodels' proportion_confint
    assert "| pan left | 0 |" in table and "| still | - |" in table


def test_labels_that_are_none_are_refused(tmp_path):
    for row, message in (
        ("a.mp4,,,pan lfet", r"labels\.csv:2: found the class 'pan lfet', expected one of pan left, pan right"),
        ("a.mp4,1,,still", r"labels\.csv:2: found the time '', expected seconds"),
        ("a.mp4,2,1,still", r"labels\.csv:2: found the end 1, expected a time after the start, 2"),
        ("a.mp4,-1,2,still", r"labels\.csv:2: found the time '-1'"),
    ):
        with pytest.raises(DataError, match=message):
            labelled_set(labels(tmp_path, row))
    with pytest.raises(UserError, match="run: found 2 classes such as 'cat', expected the ten"):
        class_ids(["cat", "dog"], "run")


def test_the_command_compares_runs_on_a_dataset(tmp_path, small_set, monkeypatch, capsys):
    """The shipped model at two sizes, on the validation videos of a rendered dataset."""
    arguments = ["--run", "camera_motion", "--dataset", small_set, "--sizes", "4x4x4,2x2x2", "--output", tmp_path]
    status, output, errors = run_tool(monkeypatch, capsys, "test_camera_motion.py", *map(str, arguments))
    assert not status, errors
    report = json.loads((tmp_path / "1x1.json").read_text(encoding="utf-8"))
    assert [result["compressed_size"] for result in report["results"]] == ["4x4x4", "2x2x2"]
    for result in report["results"]:
        assert result["videos"] == 13 == sum(sum(row.values()) for row in result["confusion"].values())
    assert (tmp_path / "1x1.md").read_text(encoding="utf-8") in output
    assert (tmp_path / "1x1_confusion.png").is_file()
