"""The aggregate of saved predictions against scikit-learn, and on the command line."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, top_k_accuracy_score
from support.paths import ROOT

from lookupvivit.evaluation.predictions import Predictions

TOOL = ROOT / "tools" / "aggregate.py"


@pytest.fixture
def saved(tmp_path):
    rng = np.random.default_rng(3)
    views = [(clip, crop) for clip in range(4) for crop in range(3)] + [(-1, 1)]
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, 83)])
    logits = rng.normal(size=(90, 13, 2, 7)).astype(np.float32)
    logits[np.arange(90), :, :, labels] += rng.normal(0.4, 0.5, (90, 1, 1)).astype(np.float32)
    predictions = Predictions(
        video_names=np.array([f"{i}.mp4" for i in range(90)]),
        labels=labels,
        head_logits=logits,
        heads=("compressed", "lookup"),
        clip_index=[clip for clip, _ in views],
        aug_index=[crop for _, crop in views],
        frame_indices=np.zeros((90, 13, 4)),
        boxes=np.zeros((90, 13, 3)),
        class_names=tuple("abcdefg"),
        facts={
            "checkpoint": "runs/x",
            "step": 5,
            "broken_videos": {"torn.mp4": "torn.mp4: cannot be decoded"},
            "missing_videos": 3,
        },
    )
    predictions.save(tmp_path / "4x3.npz")
    return tmp_path / "4x3.npz", predictions


def aggregate(*arguments, expect=0):
    done = subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == expect, done.stderr
    return done.stdout if expect == 0 else done.stderr


def test_every_view_subset_by_every_head(saved):
    file, predictions = saved
    found = json.loads(aggregate(file, "--json"))
    subsets = {"1x1": [12], "2x1": [1, 10], "2x3": [0, 1, 2, 9, 10, 11], "4x1": [1, 4, 7, 10], "4x3": range(12)}
    heads = {"both": [0, 1], "compressed": [0], "lookup": [1]}
    assert [(s["views"], s["head"]) for s in found["scores"]] == [(v, h) for h in heads for v in subsets]
    for score in found["scores"]:
        chosen = predictions.head_logits[:, list(subsets[score["views"]])][:, :, heads[score["head"]]]
        logits = chosen.astype(float).mean(axis=(1, 2))
        labels, guesses = predictions.labels, logits.argmax(axis=1)
        assert score["top1"] == pytest.approx(100 * accuracy_score(labels, guesses))
        assert score["top5"] == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=5))
        assert score["mean_class_top1"] == pytest.approx(100 * balanced_accuracy_score(labels, guesses))
    text = aggregate(file)
    assert "BROKEN, not in the scores: torn.mp4: cannot be decoded" in text
    assert "not in the scores: 1 broken, 3 missing" in text and text.count("  compressed  ") == 5


def test_one_view_by_one_head(saved):
    file, predictions = saved
    told = aggregate(file, "--clips", 1, "--crops", 1, "--head", "lookup", "--average", "softmax")
    guesses = predictions.head_logits[:, 12, 1].argmax(axis=1)  # of one view, softmax changes nothing
    assert f"({(guesses == predictions.labels).sum()} of 90)" in told and "not in the scores: 1 broken" in told
    with file.with_name("4x3_as_1x1_lookup_softmax_classes.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    matrix = confusion_matrix(predictions.labels, guesses)
    assert [int(row["videos"]) for row in rows] == matrix.sum(axis=1).tolist()
    assert [int(row["predicted"]) for row in rows] == matrix.sum(axis=0).tolist()
    assert [int(row["top1_correct"]) for row in rows] == matrix.diagonal().tolist()
    np.fill_diagonal(matrix, 0)
    worst = np.unravel_index(matrix.argmax(), matrix.shape)
    pairs = told.split("most confused")[1].splitlines()[1:]
    assert pairs[0] == f"  {'abcdefg'[worst[0]]} -> {'abcdefg'[worst[1]]}  {matrix.max()}"
    assert rows[worst[0]]["most_confused_with"] == "abcdefg"[worst[1]]
    assert file.with_name("4x3_as_1x1_lookup_softmax_confusion.png").is_file()


def test_mistakes_are_one_line(saved, tmp_path):
    file, predictions = saved
    told = aggregate(file, "--clips", 3, expect=1)
    assert told.startswith("error: a test with 3x3 views") and "1x1, 2x1, 2x3, 4x1, 4x3" in told
    single = replace(predictions, head_logits=predictions.head_logits[:, :, :1], heads=("logits",))
    single.save(tmp_path / "single.npz")
    told = aggregate(tmp_path / "single.npz", "--head", "lookup", expect=1)
    assert told == "error: head: found 'lookup', must be one of both, logits\n"
    shutil.copy(__file__, tmp_path / "no.npz")
    assert "no.npz holds no readable predictions" in aggregate(tmp_path / "no.npz", expect=1)
    assert "absent.npz" in aggregate(tmp_path / "absent.npz", expect=1)


def test_needs_no_torch(saved):
    file, _ = saved
    code = (
        f"import sys, runpy; sys.modules['torch'] = None; sys.argv = ['x', {str(file)!r}]; "
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    assert "4x3" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
