"""The record of finished points and its reports."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from lookupvivit.accuracy_cost.figures import points_figure
from lookupvivit.accuracy_cost.record import Record, scores
from lookupvivit.accuracy_cost.report import cascade_report, frontier, save_csv, table
from lookupvivit.evaluation.array_files import PredictionsError
from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.sizes import Keep, TokenSetting

# A point as version 0.1 wrote it.
POINT = {
    "checkpoint": "runs/multires",
    "model": "lookupvivit_pico8x2_4x4x4",
    "compressed_size": [2, 3, 3],
    "image_size": 64,
    "own_size": True,
    "of": {"weights": "abc", "views": [1, 3]},
    "videos": 4,
    "top1_correct": 3,
    "top1": 75.0,
    "top5": 100.0,
    "top1_interval": [30.1, 95.4],
    "broken_videos": 1,
    "gflops": 0.25,
    "parameters": 1000,
    "logits": "1x3/abc_2x3x3_64.npz",
    "clips_per_second": 40.0,
    "speed_of": {"machine": "CPU", "precision": "fp32", "batch": 2, "rounds": 1, "at": "2025-01-01T00:00:00+00:00"},
}
SMALL = {**POINT, "compressed_size": [2, 1, 1], "own_size": False, "gflops": 0.1, "clips_per_second": 100.0}
LARGE_KEY, SMALL_KEY = (("runs/multires", TokenSetting((2, n, n)), 64) for n in (3, 1))


def predictions(logits):
    num_videos, num_classes = np.shape(logits)
    return Predictions(
        video_names=np.array([f"{index}.mp4" for index in range(num_videos)]),
        labels=np.arange(num_videos) % num_classes,
        logits=np.asarray(logits)[:, None, None],
        classifiers=("logits",),
        clip_index=np.zeros(1),
        aug_index=np.zeros(1),
        frame_indices=np.zeros((num_videos, 1, 4)),
        boxes=np.zeros((num_videos, 1, 3)),
        class_names=tuple(map(str, range(num_classes))),
    )


@pytest.fixture
def record(tmp_path):
    file = tmp_path / "1x3.json"
    rows = [{**SMALL, "logits": "small.npz"}, {**POINT, "logits": "large.npz"}]
    file.write_text(json.dumps({"points": rows, "cascade": None}))
    # Labels 0, 1, 0, 1; the small size is wrong and unsure about the last video only, where the large one is right.
    predictions([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0], [1.0, 0.9]]).save(tmp_path / "small.npz")
    predictions([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).save(tmp_path / "large.npz")
    return Record(file)


def test_files_of_version_0_1_are_read_and_written_unchanged(record):
    point = record.points[LARGE_KEY]
    assert point.conditions == POINT["of"] and point.failed_videos == 1 and point.top1_interval == (30.1, 95.4)
    before = json.loads(record.file.read_text())
    record.save(cascade=None)
    assert json.loads(record.file.read_text()) == before


def test_top_5_needs_more_than_five_classes(record, tmp_path):
    assert scores(predictions(np.eye(6)), "six")["top5"] == 100
    point = replace(record.points[LARGE_KEY], **scores(predictions(np.eye(5)), "five"))
    assert point.top5 is None
    save_csv(tmp_path / "points.csv", [point], None)
    with (tmp_path / "points.csv").open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["top1"], row["top5"]) == ("100.0", "")


def test_points_are_found_only_under_their_conditions_and_with_their_logits(record):
    assert record.find(LARGE_KEY, POINT["of"]) is record.points[LARGE_KEY]
    assert record.find(LARGE_KEY, {**POINT["of"], "weights": "other"}) is None
    assert record.find(("runs/other", *LARGE_KEY[1:]), POINT["of"]) is None
    (record.file.parent / "large.npz").unlink()
    assert record.find(LARGE_KEY, POINT["of"]) is None


@pytest.mark.parametrize("text", ['{"points": [{"checkpoint": 1}]}', '{"points": [1]}', "[]", "{", '{"other": []}'])
def test_other_json_files_raise_and_are_named(tmp_path, text):
    file = tmp_path / "1x3.json"
    file.write_text(text)
    with pytest.raises(PredictionsError, match=r"1x3\.json"):
        Record(file)


def test_the_best_cascade_passes_on_the_unsure_video_only(record):
    cascade = cascade_report(record, record.points[SMALL_KEY], record.points[LARGE_KEY])
    assert (cascade["small"], cascade["large"], cascade["videos"]) == ("2x1x1", "2x3x3", 4)
    best = cascade["best"]
    assert (best["share"], best["top1"]) == (0.25, 100.0)
    assert best["gflops"] == pytest.approx(0.1 + 0.25 * 0.25)
    assert best["clips_per_second"] == pytest.approx(1 / (1 / 100 + 0.25 / 40))
    assert [step["top1"] for step in cascade["steps"]] == [75.0, 100.0, 75.0]


def test_reports_contain_every_point_and_threshold(record, tmp_path):
    points = list(record.points.values())
    cascade = cascade_report(record, *points)
    save_csv(tmp_path / "points.csv", points, cascade)
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["compressed_size"] for row in rows] == ["2x1x1", "2x3x3", *["2x1x1 then 2x3x3"] * 3]
    assert float(rows[1]["gflops_per_view"]) == 0.25 and float(rows[3]["share_passed_on"]) == 0.25
    lines = table(points).splitlines()
    assert "2x1x1" in lines[1] and "2x3x3" in lines[2] and "75.00 %" in lines[2]
    figure = points_figure(points, cascade, "1x3", "data")
    assert figure.dtype == np.uint8 and figure.ndim == 3


def test_kept_tokens_are_read_back_and_share_one_frontier(record, tmp_path):
    small, large = (record.points[key] for key in (SMALL_KEY, LARGE_KEY))
    kept = replace(large, keep=Keep(0.5, "motion"), gflops=0.2, top1=75.0)
    worse = replace(large, keep=Keep(0.3), gflops=0.15, top1=20.0)
    other = replace(
        large, checkpoint="runs/vivit", compressed_size=None, keep=Keep(0.5, "merge"), gflops=0.3, top1=80.0
    )
    cheap = replace(small, top1=50.0)
    points = [large, kept, worse, other, cheap]
    assert frontier(points) == [cheap, kept, other]
    record.points = {point.key: point for point in points}
    record.save()
    assert list(Record(record.file).points.values()) == points
    assert [line[-1] == "*" for line in table(points).splitlines()[1:-1]] == [False, True, False, True, True]
    save_csv(tmp_path / "points.csv", points, None)
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["keep"] for row in rows] == ["", "motion:0.5", "0.3", "merge:0.5", ""]
    assert [row["compressed_size"] for row in rows] == ["2x3x3", "2x3x3", "2x3x3", "all tokens", "2x1x1"]
    assert points_figure(points, None, "1x3", "data").ndim == 3
