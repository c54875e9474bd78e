"""tools/cost_accuracy.py, by its command line, against tools/test_net.py and loops over what it keeps."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT

from lookupvivit.accuracy_cost.cascade import confidence
from lookupvivit.config.loading import load_config, to_yaml
from lookupvivit.evaluation.predictions import Predictions
from lookupvivit.training.build import build_model, classifier_description
from lookupvivit.training.data import read_manifest
from lookupvivit.training.distributed import World
from lookupvivit.weights.files import load_model, save_model

TOOL = [sys.executable, str(ROOT / "tools" / "cost_accuracy.py")]
QUICK = ("eval.clips=1", "eval.crops=3", "--rounds", "1", "--batch", "2")


@pytest.fixture
def runs(tmp_path, command, shell):
    """A multi-resolution run, and a ViViT of its own."""
    grid = "model.multi_resolution={t: [2], k: [1, 2, 3]}"
    shell(command("train_net.py", tmp_path / "multires", "optim.max_steps=3", grid))
    shell(
        command(
            "train_net.py",
            tmp_path / "vivit",
            "optim.max_steps=1",
            "model.name=vivit_pico8x2",
            "model.overrides={}",
            "model.overrides={width: 32, depth: 1, num_heads: 2}",
        )
    )
    return tmp_path / "multires", tmp_path / "vivit"


def points_of(folder):
    return {
        (p["checkpoint"], p["compressed_size"] and tuple(p["compressed_size"]), p["image_size"]): p
        for p in json.loads((folder / "1x3.json").read_text())["points"]
    }


@pytest.mark.cold
@pytest.mark.slow
def test_every_size_from_one_decode_and_none_twice(runs, command, shell):
    main, vivit = runs
    told = shell([*TOOL, str(main), "--individual", str(vivit), *QUICK])
    assert "4 points, 1x3 views of 64 pixels" in told
    folder = main / "cost_accuracy"
    points = points_of(folder)
    sizes = [(2, k, k) for k in (1, 2, 3)]
    assert set(points) == {(str(main), size, 64) for size in sizes} | {(str(vivit), None, 64)}
    costs = [points[str(main), size, 64]["gflops"] for size in sizes]
    assert costs == sorted(costs) and len(set(costs)) == 3
    assert all(point["clips_per_second"] > 0 for point in points.values())

    # as tools/test_net.py has it
    shell(command("test_net.py", main, "eval.compressed_size=[2,2,2]", "eval.clips=1", "eval.crops=3"))
    theirs = Predictions.load(main / "predictions" / "1x3_compressed_2x2x2.npz")
    mine = Predictions.load(folder / points[str(main), (2, 2, 2), 64]["logits"])
    np.testing.assert_allclose(mine.view_logits, theirs.view_logits, atol=1e-5)
    assert mine.video_names.tolist() == theirs.video_names.tolist() and mine.class_names == theirs.class_names
    top1 = theirs.summary()["views"]["1x3"]["top1"]
    assert points[str(main), (2, 2, 2), 64]["top1"] == top1

    # the cascade as a loop over the videos
    cascade = json.loads((folder / "1x3.json").read_text())["cascade"]
    assert (cascade["small"], cascade["large"]) == ("2x1x1", "2x3x3")
    small, large = (points[str(main), size, 64] for size in (sizes[0], sizes[-1]))
    kept = [Predictions.load(folder / point["logits"]).video_logits() for point in (small, large)]
    for step in cascade["steps"]:
        right = spent = 0
        for cheap, dear, label in zip(*kept, theirs.labels, strict=True):
            ask = confidence(cheap[None])[0] < step["threshold"]
            right += (dear if ask else cheap).argmax() == label
            spent += small["gflops"] + ask * large["gflops"]
        assert step["top1"] == pytest.approx(100 * right / 13)
        assert step["gflops"] == pytest.approx(spent / 13)
    assert cascade["best"]["top1"] >= max(small["top1"], large["top1"])
    rows = list(csv.DictReader((folder / "1x3.csv").open()))
    assert [row["compressed_size"] for row in rows[:4]] == ["2x1x1", "2x2x2", "2x3x3", "all tokens"]
    assert len(rows) == 4 + len(cascade["steps"])
    assert Image.open(folder / "1x3.png").size == (1500, 720)

    # the same again computes nothing; one size more computes that one; other weights are other points
    again = shell([*TOOL, str(main), "--individual", str(vivit), *QUICK])
    assert "has 4 of the 4 points already" in again and "points, 1x3 views" not in again and "speed of" not in again
    assert points_of(folder) == points
    more = shell([*TOOL, str(main), "--sizes", "2x1x1,2x2x2,2x4x4", *QUICK])
    assert "has 2 of the 3 points already" in more and "1 points, 1x3 views" in more and "speed of 3 sizes" in more
    after = points_of(folder)
    assert set(after) == {*points, (str(main), (2, 4, 4), 64)}
    assert after[str(main), (2, 3, 3), 64] == points[str(main), (2, 3, 3), 64]
    shell(
        command(
            "train_net.py",
            vivit,
            "optim.max_steps=2",
            "model.name=vivit_pico8x2",
            "model.overrides={}",
            "model.overrides={width: 32, depth: 1, num_heads: 2}",
        )
    )
    anew = shell([*TOOL, str(main), "--individual", str(vivit), *QUICK])
    assert "has 3 of the 4 points already" in anew and "1 points, 1x3 views" in anew


def test_image_sizes_and_individuals_everywhere(runs, tmp_path, shell):
    main, vivit = runs
    other = tmp_path / "individual"
    shutil.copytree(main, other)
    told = shell(
        [
            *TOOL,
            str(main),
            "--individual",
            str(other),
            "--individual",
            str(vivit),
            "--everywhere",
            "--sizes",
            "2x1x1,2x2x2",
            "--image-sizes",
            "48,64",
            "--output",
            str(tmp_path / "out"),
            *QUICK,
        ]
    )
    assert "6 points, 1x3 views of 48 pixels" in told and "6 points, 1x3 views of 64 pixels" in told
    assert "speed of 8 sizes" in told  # two runs of one architecture are timed once
    points = points_of(tmp_path / "out")
    assert len(points) == 12
    own = {size for (path, size, _), point in points.items() if path == str(other) and point["own_size"]}
    assert own == {(2, 3, 3)} and points[str(vivit), None, 48]["gflops"] < points[str(vivit), None, 64]["gflops"]
    for key, point in points.items():  # the copy scores what its model scores
        if key[0] == str(main):
            assert point["top1"] == points[(str(other), *key[1:])]["top1"]
    small = Predictions.load(tmp_path / "out" / points[str(main), (2, 1, 1), 48]["logits"])

    # crops of 48 out of frames resized in the same proportion: the whole height, as at 64
    from data_pipelines.transforms.clip_transforms import crop_views
    from data_pipelines.video.reader import read_frames

    frames = torch.from_numpy(read_frames(small.video_names[0], [2, 3, 4, 5])).permute(0, 3, 1, 2)
    views = crop_views(frames, 48, 48, 3).float() / 127.5 - 1
    with torch.no_grad():
        expected = load_model(main)(views, compressed_size=(2, 1, 1)).logits
    np.testing.assert_allclose(small.view_logits[0], expected, atol=1e-4)


@pytest.fixture
def finished(tmp_path, command):
    """A run directory as training leaves it, and in it a record that is none."""
    run = tmp_path / "run"
    *_, file = command("any.py", run)[:4]
    config = load_config(file, command("any.py", run)[4:])
    names = read_manifest(config, "val", World(0, 1, torch.device("cpu"))).class_names
    save_model(run, build_model(config).state_dict(), classifier_description(config, names))
    (run / "config.yaml").write_text(to_yaml(config))
    (run / "cost_accuracy").mkdir()
    (run / "cost_accuracy" / "1x3.json").write_text('{"points": [{"checkpoint": 1}]}')
    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sizes", "4x2"), "error: --sizes: found '4x2', must be t x h x w tokens, such as 4x3x3"),
        (("--image-sizes", "64,x"), "error: --image-sizes: found 'x', must be pixels, such as 224,288,384"),
        (("--cascade", "2x1x1"), "error: --cascade: found '2x1x1', must be two sizes, such as 4x2x2,4x6x6"),
        (("--cascade", "2x1x1,2x9x9", "--sizes", "2x1x1"), "error: --cascade: found '2x1x1,2x9x9', must be two of"),
        (("--rounds", "0"), "error: --rounds: found 0, must be at least 1"),
        (("--individual", "nowhere"), "error: nowhere: not found; expected a run directory"),
        (("eval.clip=1",), "error: command line: eval.clip: no such key, did you mean eval.clips?"),
        (("data.stride=2",), "preprocessing.stride: 1 -> 2"),
        (("--image-sizes", "60"), "60 pixels: a video of (T, H, W) = (4, 60, 60) cannot be cut into tubelets"),
        ((), "1x3.json: holds no points of this tool"),
    ],
)
def test_mistakes_are_one_line(arguments, words, finished, shell):
    told = shell([*TOOL, str(finished), *QUICK, *arguments], expect=2)
    assert words in told and "Traceback" not in told


def test_a_run_without_a_configuration_is_told(tmp_path, shell):
    told = shell([*TOOL, str(tmp_path)], expect=2)
    assert told.startswith(f"error: {tmp_path}/config.yaml: no such file") and "Traceback" not in told
