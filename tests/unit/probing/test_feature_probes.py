"""Probes on stored features: compared with plain float64 computations, scikit-learn, certainty and chance."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from support.in_process import run_tool

from data_pipelines.io.errors import DataError
from lookupvivit.evaluation.array_files import save_arrays
from lookupvivit.features.folders import load_features
from lookupvivit.probing.feature_probes import LINEAR, probe_features, split_by_class
from lookupvivit.probing.nearest_neighbours import neighbour_votes
from lookupvivit.probing.trained import (
    AttentiveProbe,
    PooledExamples,
    Recipe,
    Setting,
    linear_probe,
    probe_logits,
    train_probes,
)

CLASSES = ("a", "b", "c", "d")
WIDTH = 16
QUICK = Recipe(Setting.grid((1e-2,), (0.01, 0.1)), epochs=15, batch_size=16)


def write_features(folder, count, labels="true", seed=0, tokens=False, class_names=CLASSES):
    """Features of two views per example: a direction per class, and noise. Labels may be random or absent.

    In the tokens, the direction is in one of 5 to 7, at a random place, and a constant vector marks it.
    """
    rng = np.random.default_rng(seed)
    directions = 3 * np.random.default_rng(99).normal(size=(len(CLASSES) + 1, WIDTH))
    classes = np.arange(count) % len(CLASSES)
    stored = {"true": classes, "random": rng.integers(0, len(CLASSES), count), "absent": np.full(count, -1)}[labels]
    for number in range(count):
        arrays = {"name": np.array(f"{number:04d}"), "label": np.array(stored[number], np.int64)}
        for stream in ("compressed_features", "lookup_features"):
            arrays[stream] = (directions[classes[number]] + rng.normal(size=(2, WIDTH))).astype(np.float32)
        if tokens:
            grid = rng.normal(size=(1, 1, 1, 5 + number % 3, WIDTH))
            grid[..., rng.integers(5), :] += directions[classes[number]] + directions[-1]
            arrays["block3_lookup"] = grid.astype(np.float32)
            arrays["block1_lookup"] = np.zeros((1, 1, 1, 2, WIDTH), np.float32)
        save_arrays(folder / f"{number:04d}.npz", arrays)
    settings = {"model": "m", "streams": ["compressed_features", "lookup_features"], "class_names": list(class_names)}
    (folder / "features.json").write_text(json.dumps({**settings, "blocks": [1, 3] if tokens else []}))
    return load_features(folder)


@pytest.mark.parametrize("counts", [(1, 3, 10), (7, 500)])
def test_votes_equal_a_plain_float64_search(counts):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(60, 5)), rng.normal(size=(1100, 5))  # more test examples than a chunk
    labels = rng.integers(0, 3, 60)
    found = neighbour_votes(train.astype(np.float32), labels, test.astype(np.float32), 3, counts, temperature=0.1)
    for count in counts:
        for row in range(0, 1100, 7):
            query = test[row].astype(np.float32).astype(float)
            examples = train.astype(np.float32).astype(float)
            cosine = [query @ one / np.sqrt((query @ query) * (one @ one)) for one in examples]
            votes = np.zeros(3)
            for index in sorted(range(60), key=lambda i: -cosine[i])[:count]:
                votes[labels[index]] += np.exp(cosine[index] / 0.1)
            np.testing.assert_allclose(found[count][row], votes, rtol=1e-9)


def test_separable_features_reach_100_per_cent(tmp_path):
    train = write_features(tmp_path / "train", 120, tokens=True)
    test = write_features(tmp_path / "test", 60, seed=1, tokens=True)
    scores = list(probe_features(train, test, linear=replace(LINEAR, epochs=20), attentive=QUICK, shots=[5, 31]))
    assert [score.probe for score in scores] == ["linear", "k-NN", "ridge, 5 per class", "attentive"]
    for score in scores:
        assert score.top1 == 100, score
    for score in (scores[0], scores[1], scores[3]):
        low, high = score.interval
        assert 93 < low < 95 and high == 100 and score.held_out[score.setting] == max(score.held_out.values())


def test_random_labels_stay_at_chance(tmp_path):
    """Also a probe that fits the training labels. The bounds are five standard deviations from 25 %."""
    train = write_features(tmp_path / "train", 120, "random", tokens=True)
    test = write_features(tmp_path / "test", 400, "random", seed=1, tokens=True)
    for score in probe_features(train, test, attentive=replace(QUICK, epochs=5), shots=[5]):
        assert 14 < score.top1 < 36, score


def test_the_linear_probe_agrees_with_logistic_regression():
    """Overlapping classes: both find the optimum of the same convex problem, up to the last decisions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    features = (rng.normal(size=(3, 6))[labels] + rng.normal(size=(300, 6)) * rng.uniform(0.5, 3, 6)).astype(np.float32)
    examples = PooledExamples(features, features, "cpu")
    recipe = Recipe((Setting(0.1, 0.0),), epochs=200, batch_size=300)
    probes = train_probes(lambda: linear_probe(6, 3), examples, np.arange(300), labels, recipe, "cpu")
    [logits] = probe_logits(probes, examples, np.arange(300), 7)
    standardised = (features - features.mean(0)) / features.std(0)
    expected = LogisticRegression(C=1e9, max_iter=10_000).fit(standardised, labels).predict_proba(standardised)
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), expected, atol=5e-3)


def test_probes_that_are_trained_together_equal_those_trained_alone():
    rng = np.random.default_rng(0)
    tokens, padding = torch.from_numpy(rng.normal(size=(20, 4, 8)).astype(np.float32)), torch.zeros(20, 4).bool()
    labels = rng.integers(0, 3, 20)

    def train(*settings):
        recipe = Recipe(settings, epochs=3, batch_size=8)
        examples = lambda indices: (tokens[indices], padding[indices])  # noqa: E731
        return train_probes(lambda: AttentiveProbe(8, 3), examples, np.arange(20), labels, recipe, "cpu")

    settings = Setting(1e-3, 0.0), Setting(1e20, 0.1), Setting(1e-2, 0.5)  # the second one diverges
    together = train(*settings)
    for probe, setting in zip(together, settings, strict=True):
        [alone] = train(setting)
        for name, values in probe.state_dict().items():
            torch.testing.assert_close(values, alone.state_dict()[name], rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(together[0].head.weight, together[2].head.weight)


def test_an_attentive_probe_ignores_padding_and_order():
    torch.manual_seed(0)
    probe = AttentiveProbe(WIDTH, 3)
    tokens = torch.randn(2, 5, WIDTH)
    padded = torch.cat([tokens[:, [3, 1, 4, 0, 2]], torch.full((2, 2, WIDTH), 9.0)], dim=1)
    is_padding = torch.tensor([[False] * 5 + [True] * 2] * 2)
    with torch.no_grad():
        expected = probe(tokens, torch.zeros(2, 5).bool())
        torch.testing.assert_close(probe(padded, is_padding), expected)
        assert not torch.allclose(probe(tokens.roll(1, dims=2), torch.zeros(2, 5).bool()), expected)


def test_test_features_choose_nothing(tmp_path):
    train = write_features(tmp_path / "train", 60, "random")
    tests = [write_features(tmp_path / str(seed), 40, "random", seed) for seed in (1, 2)]
    one, two = ([*probe_features(train, test, ["linear", "knn"], linear=QUICK)] for test in tests)
    assert [(score.setting, score.held_out) for score in one] == [(score.setting, score.held_out) for score in two]


def test_a_fifth_of_every_class_is_held_out():
    labels = np.array([0] * 10 + [1] * 2 + [2] + [3] * 50)
    kept, held_out = split_by_class(labels, 0.2, seed=0)
    assert np.bincount(labels[held_out], minlength=4).tolist() == [2, 1, 0, 10]
    assert sorted([*kept, *held_out]) == list(range(63))
    assert split_by_class(labels, 0.2, seed=1)[1].tolist() != held_out.tolist()
    with pytest.raises(DataError, match="found one example of each of 3 classes"):
        split_by_class(np.arange(3), 0.2, seed=0)


def test_features_that_do_not_fit_are_one_error(tmp_path):
    train = write_features(tmp_path / "train", 12)
    for problem, test, options in (
        ("test features: found 8 of 8 videos without a label", write_features(tmp_path / "1", 8, "absent"), {}),
        ("found 4 classes that differ", write_features(tmp_path / "2", 8, class_names="wxyz"), {}),
        ("test features: model: found n, expected m", replace(train, settings={**train.settings, "model": "n"}), {}),
        ("streams: found 'features', expected some of compressed_features", train, {"streams": ["features"]}),
        ("without tokens of the same block", train, {"probes": ["attentive"]}),
        ("probes: found 'svm'", train, {"probes": ["svm"]}),
    ):
        with pytest.raises(DataError, match=problem):
            list(probe_features(train, test, **options))


def test_the_tool_prints_one_table_and_writes_json(tmp_path, monkeypatch, capsys):
    write_features(tmp_path / "train", 40, tokens=True)
    write_features(tmp_path / "test", 20, seed=1, tokens=True)
    arguments = [tmp_path / "train", "--test", tmp_path / "test", "--json", tmp_path / "p.json"]
    options = ["--streams", "lookup_features", "--epochs", "8", "--learning-rates", "1e-2", "--shots", "5", "11"]
    status, output, _ = run_tool(monkeypatch, capsys, "probe.py", *arguments, *options)
    assert status == 0 and "40 training and 20 test features of 4 classes" in output
    assert "not fitted: 11 per class" in output
    report = json.loads((tmp_path / "p.json").read_text())
    assert [score["probe"] for score in report["probes"]] == ["linear", "k-NN", "ridge, 5 per class", "attentive"]
    for score in report["probes"]:
        [line] = [line for line in output.splitlines() if line.startswith(score["probe"] + " ")]
        assert score["setting"] in line and f"{score['top1']:.1f}" in line
        assert f"{score['interval'][0]:.1f} to {score['interval'][1]:.1f}" in line
    assert list(report["probes"][0]["held_out"]) == [f"lr 0.01, wd {decay}" for decay in ("0", "0.01", "0.1", "1")]
    status, _, error = run_tool(monkeypatch, capsys, "probe.py", tmp_path / "none", "--test", tmp_path / "test")
    assert status == 2 and error == f"error: {tmp_path / 'none' / 'features.json'}: no such file\n"
