"""tools/aggregate.py by its command line, against scikit-learn."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, top_k_accuracy_score
from support.in_process import run_tool
from support.paths import ROOT

from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.training.multi_view_test import save as save_test

CENTRE = 12  # index of the additional centre view


@pytest.fixture
def saved(tmp_path):
    """The file and the predictions of a 4x3 test of 90 videos of 7 classes."""
    rng = np.random.default_rng(3)
    views = [(clip, crop) for clip in range(4) for crop in range(3)] + [(-1, 1)]
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, 83)])
    logits = rng.normal(size=(90, 13, 2, 7)).astype(np.float32)
    logits[np.arange(90), :, :, labels] += rng.normal(0.4, 0.5, (90, 1, 1)).astype(np.float32)
    failed = {"torn.mp4": "torn.mp4: cannot be decoded"}
    predictions = Predictions(
        video_names=np.array([f"{i}.mp4" for i in range(90)]),
        labels=labels,
        logits=logits,
        classifiers=("compressed", "lookup"),
        clip_index=[clip for clip, _ in views],
        aug_index=[crop for _, crop in views],
        frame_indices=np.zeros((90, 13, 4)),
        boxes=np.zeros((90, 13, 3)),
        class_names=tuple("abcdefg"),
        facts={"checkpoint": "runs/x", "step": 5, "broken_videos": failed, "missing_videos": 3},
    )
    predictions.save(tmp_path / "4x3.npz")
    return tmp_path / "4x3.npz", predictions


@pytest.fixture
def aggregate(monkeypatch, capsys):
    """Run the tool in this process; returns exit status (or error message), output and errors."""
    return lambda *arguments: run_tool(monkeypatch, capsys, "aggregate.py", *arguments)


def test_all_view_subsets_and_classifiers(saved, aggregate):
    file, predictions = saved
    status, output, _ = aggregate(file, "--json")
    scores = json.loads(output)["scores"]
    subsets = {"1x1": [CENTRE], "2x1": [1, 10], "2x3": [0, 1, 2, 9, 10, 11], "4x1": [1, 4, 7, 10], "4x3": range(12)}
    classifiers = {"both": [0, 1], "compressed": [0], "lookup": [1]}
    assert status == 0
    assert [(row["views"], row["classifier"]) for row in scores] == [(v, c) for c in classifiers for v in subsets]
    for row in scores:
        selected = predictions.logits[:, list(subsets[row["views"]])][:, :, classifiers[row["classifier"]]]
        logits = selected.astype(float).mean(axis=(1, 2))
        labels, predicted = predictions.labels, logits.argmax(axis=1)
        assert row["top1"] == pytest.approx(100 * accuracy_score(labels, predicted))
        assert row["top5"] == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=5))
        assert row["mean_class_top1"] == pytest.approx(100 * balanced_accuracy_score(labels, predicted))


def test_the_text_has_all_scores_and_the_excluded_videos(saved, aggregate):
    _, text, _ = aggregate(saved[0])
    assert text.count("  compressed  ") == 5 and "runs/x" in text
    assert "torn.mp4: cannot be decoded" in text and "1 failed, 3 missing" in text


@pytest.mark.parametrize("option", ["--classifier", "--head"])
def test_one_view_of_one_classifier(saved, aggregate, option):
    file, predictions = saved
    _, text, _ = aggregate(file, "--clips", 1, "--crops", 1, option, "lookup", "--average", "softmax")
    predicted = predictions.logits[:, CENTRE, 1].argmax(axis=1)  # for a single view, softmax changes nothing
    assert f"({(predicted == predictions.labels).sum()} of 90)" in text
    with file.with_name("4x3_as_1x1_lookup_softmax_classes.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    matrix = confusion_matrix(predictions.labels, predicted)
    assert [int(row["videos"]) for row in rows] == matrix.sum(axis=1).tolist()
    assert [int(row["predicted"]) for row in rows] == matrix.sum(axis=0).tolist()
    assert [int(row["top1_correct"]) for row in rows] == matrix.diagonal().tolist()
    np.fill_diagonal(matrix, 0)
    true, confused = np.unravel_index(matrix.argmax(), matrix.shape)
    pairs = text.split("most confused")[1].splitlines()[1:]
    assert pairs[0].split() == ["abcdefg"[true], "->", "abcdefg"[confused], str(matrix.max())]
    assert rows[true]["most_confused_with"] == "abcdefg"[confused]
    assert file.with_name("4x3_as_1x1_lookup_softmax_confusion.png").is_file()


def test_top_5_needs_more_than_five_classes(saved, aggregate, tmp_path, capsys):
    """In the test that wrote the file, in both forms of the tool's output, and in the table of the classes."""
    _, predictions = saved
    for num_classes in (5, 6):
        few = replace(
            predictions,
            labels=predictions.labels % num_classes,
            logits=predictions.logits[..., :num_classes],
            class_names=predictions.class_names[:num_classes],
        )
        save_test(few, tmp_path, "few")
        outputs = [capsys.readouterr().out, (tmp_path / "few.json").read_text()]
        for options in ([], ["--json"], ["--clips", 1, "--crops", 1], ["--clips", 1, "--crops", 1, "--json"]):
            outputs.append(aggregate(tmp_path / "few.npz", *options)[1])
        outputs.append((tmp_path / "few_as_1x1_both_logits_classes.csv").read_text())
        has_top5 = ["top5" in output or "top-5" in output for output in outputs]
        assert has_top5 == [num_classes == 6] * 7
        assert all("top1" in output or "top-1" in output for output in outputs)


def test_errors_are_one_line(saved, aggregate, tmp_path):
    file, predictions = saved
    message, *_ = aggregate(file, "--clips", 3)
    assert message.startswith("error: views: ") and "3x3" in message and "1x1, 2x1, 2x3, 4x1, 4x3" in message
    single = replace(predictions, logits=predictions.logits[:, :, :1], classifiers=("logits",))
    single.save(tmp_path / "single.npz")
    message, *_ = aggregate(tmp_path / "single.npz", "--classifier", "lookup")
    assert message.startswith("error: classifier: found 'lookup'") and "logits" in message
    (tmp_path / "other.npz").write_text("no archive")
    for name in ("other.npz", "missing.npz"):
        message, *_ = aggregate(tmp_path / name)
        assert message.startswith("error: ") and name in message and "\n" not in message


def test_torch_is_not_needed(saved):
    tool, (file, _) = str(ROOT / "tools" / "aggregate.py"), saved
    code = f"import sys, runpy; sys.modules['torch'] = None; sys.argv = ['x', {str(file)!r}]; "
    code += f"runpy.run_path({tool!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and "4x3" in result.stdout, result.stderr
    arguments = [sys.executable, tool, str(file), "--clips", "3"]
    assert subprocess.run(arguments, capture_output=True).returncode == 1
