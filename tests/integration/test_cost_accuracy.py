"""tools/cost_accuracy.py on its command line, compared with tools/test_net.py and with loops over its stored logits."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT

from data_pipelines.transforms.geometry import crop_views
from data_pipelines.video.reader import read_frames
from lookupvivit.accuracy_cost.cascade import confidence
from lookupvivit.cli.cost_accuracy import parse_args
from lookupvivit.config.loading import load_config, to_yaml
from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.training.build import build_model, classifier_description
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import read_manifest
from lookupvivit.weights.files import load_model, save_model

TOOL = [sys.executable, str(ROOT / "tools" / "cost_accuracy.py")]
QUICK = ("eval.clips=1", "eval.crops=3", "--rounds", "1", "--batch-size", "2")
MULTI_RESOLUTION = ("model.multi_resolution={t: [2], k: [1, 2, 3]}",)
VIVIT = (
    "model.name=vivit_pico8x2",
    "model.overrides={}",  # replaces the arguments of the LookupViT, which a mapping would be merged into
    "model.overrides={width: 32, depth: 1, num_heads: 2}",
)
SIZES = [(2, 1, 1), (2, 2, 2), (2, 3, 3)]


@pytest.fixture
def random_run(command):
    """Create a run directory with the files that training leaves, and random weights."""

    def create(run, *overrides, seed=0):
        _, _, _, cfg, *settings = command("train_net.py", run, *overrides)
        config = load_config(cfg, settings)
        names = read_manifest(config, "val", World(0, 1, torch.device("cpu"))).class_names
        torch.manual_seed(seed)
        model = build_model(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)  # classifiers start at zero
        save_model(run, model.state_dict(), classifier_description(config, names))
        (run / "config.yaml").write_text(to_yaml(config))
        return run

    return create


def points_of(folder):
    rows = json.loads((folder / "1x3.json").read_text())["points"]
    return {
        (row["checkpoint"], row["compressed_size"] and tuple(row["compressed_size"]), row["image_size"]): row
        for row in rows
    }


@pytest.mark.cold
@pytest.mark.slow
def test_points_equal_the_test_tool_and_are_computed_once(tmp_path, random_run, command, shell):
    run = random_run(tmp_path / "multires", *MULTI_RESOLUTION)
    vivit = random_run(tmp_path / "vivit", *VIVIT)
    evaluate = [*TOOL, "--run", str(run), "--individual", str(vivit), *QUICK]
    assert "4 points, 1x3 views of 64 pixels" in shell(evaluate)
    folder = run / "cost_accuracy"
    points = points_of(folder)
    assert set(points) == {(str(run), size, 64) for size in SIZES} | {(str(vivit), None, 64)}
    gflops = [points[str(run), size, 64]["gflops"] for size in SIZES]
    assert gflops == sorted(gflops) and len(set(gflops)) == 3
    assert all(point["clips_per_second"] > 0 for point in points.values())

    shell(command("test_net.py", run, "eval.compressed_size=2x2x2", "eval.clips=1", "eval.crops=3"))
    compare_with_test_tool(run, folder, points[str(run), (2, 2, 2), 64])
    cascade = json.loads((folder / "1x3.json").read_text())["cascade"]
    compare_with_loop(cascade, folder, [points[str(run), size, 64] for size in (SIZES[0], SIZES[-1])])
    with (folder / "1x3.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["compressed_size"] for row in rows[:4]] == ["2x1x1", "2x2x2", "2x3x3", "all tokens"]
    assert len(rows) == 4 + len(cascade["steps"])
    assert Image.open(folder / "1x3.png").mode == "RGB"

    repeated = shell(evaluate)
    assert "4 of the 4 points" in repeated and "points, 1x3 views" not in repeated and "speed of" not in repeated
    assert points_of(folder) == points
    one_more = shell([*TOOL, str(run), "--sizes", "2x1x1,2x2x2,2x4x4", *QUICK])  # RUN without --run, as in version 0.1
    assert "2 of the 3 points" in one_more and "1 points, 1x3 views" in one_more and "speed of 3 sizes" in one_more
    after = points_of(folder)
    assert set(after) == {*points, (str(run), (2, 4, 4), 64)}
    assert after[str(run), (2, 3, 3), 64] == points[str(run), (2, 3, 3), 64]
    random_run(vivit, *VIVIT, seed=1)
    other_weights = shell(evaluate)
    assert "3 of the 4 points" in other_weights and "1 points, 1x3 views" in other_weights


def compare_with_test_tool(run, folder, point):
    expected = Predictions.load(run / "predictions" / "1x3_compressed_2x2x2.npz")
    predictions = Predictions.load(folder / point["logits"])
    np.testing.assert_allclose(predictions.view_logits, expected.view_logits, atol=1e-5)
    assert predictions.video_names.tolist() == expected.video_names.tolist()
    assert predictions.class_names == expected.class_names
    assert point["top1"] == expected.summary()["views"]["1x3"]["top1"]


def compare_with_loop(cascade, folder, points):
    """Recompute every threshold of the cascade of two points with a loop over the videos."""
    assert (cascade["small"], cascade["large"]) == ("2x1x1", "2x3x3")
    small, large = points
    stored = [Predictions.load(folder / point["logits"]) for point in points]
    for step in cascade["steps"]:
        num_correct = gflops = 0
        videos = zip(*(predictions.video_logits() for predictions in stored), stored[0].labels, strict=True)
        for small_logits, large_logits, label in videos:
            passed = confidence(small_logits[None])[0] < step["threshold"]
            num_correct += (large_logits if passed else small_logits).argmax() == label
            gflops += small["gflops"] + passed * large["gflops"]
        assert step["top1"] == pytest.approx(100 * num_correct / 13)
        assert step["gflops"] == pytest.approx(gflops / 13)
    assert cascade["best"]["top1"] >= max(small["top1"], large["top1"])


def test_image_sizes_and_individual_checkpoints_at_all_sizes(tmp_path, random_run, shell):
    run = random_run(tmp_path / "multires", *MULTI_RESOLUTION)
    vivit = random_run(tmp_path / "vivit", *VIVIT)
    copy, output = tmp_path / "individual", tmp_path / "out"
    shutil.copytree(run, copy)
    options = ("--sizes", "2x1x1,2x2x2", "--image-sizes", "48,64", "--everywhere", "--output", str(output))
    individuals = ("--individual", str(copy), "--individual", str(vivit))
    printed = shell([*TOOL, "--run", str(run), *individuals, *options, *QUICK])
    assert "6 points, 1x3 views of 48 pixels" in printed and "6 points, 1x3 views of 64 pixels" in printed
    assert "speed of 8 sizes" in printed  # the two runs of one architecture share their measurements
    points = points_of(output)
    assert len(points) == 12
    own = {size for (path, size, _), point in points.items() if path == str(copy) and point["own_size"]}
    assert own == {(2, 3, 3)}
    assert points[str(vivit), None, 48]["gflops"] < points[str(vivit), None, 64]["gflops"]
    for (path, size, image_size), point in points.items():
        if path == str(run):
            assert point["top1"] == points[str(copy), size, image_size]["top1"]

    # Crops of 48 pixels are cut from frames that are resized in proportion, and so show the whole height, as at 64.
    predictions = Predictions.load(output / points[str(run), (2, 1, 1), 48]["logits"])
    frames = torch.from_numpy(read_frames(predictions.video_names[0], [2, 3, 4, 5])).permute(0, 3, 1, 2)
    views = crop_views(frames, 48, 48, 3).float() / 127.5 - 1
    with torch.no_grad():
        expected = load_model(run)(views, compressed_size=(2, 1, 1)).logits
    np.testing.assert_allclose(predictions.view_logits[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ((), "--run"),
        (("runs/x", "--sizes", "4x2"), "--sizes"),
        (("runs/x", "--image-sizes", "64,x"), "--image-sizes"),
        (("runs/x", "--cascade", "2x1x1"), "--cascade"),
        (("runs/x", "--cascade", "2x1x1,2x9x9", "--sizes", "2x1x1"), "--cascade"),
        (("runs/x", "--cascade", "2x1x1,2x2x2", "--image-sizes", "48,64"), "--cascade"),
        (("runs/x", "--rounds", "0"), "--rounds"),
    ],
)
def test_invalid_options_are_named(arguments, option, capsys):
    with pytest.raises(SystemExit) as exit:
        parse_args(arguments)
    assert exit.value.code == 2 and f"argument {option}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--individual", "nowhere"), "error: nowhere: "),
        (("eval.clip=1",), "eval.clips"),
        (("data.stride=2",), "preprocessing.stride: 1 -> 2"),
        (("--image-sizes", "60"), "60 pixels: "),
        ((), "1x3.json: "),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, random_run, shell):
    run = random_run(tmp_path / "run")
    (run / "cost_accuracy").mkdir()
    (run / "cost_accuracy" / "1x3.json").write_text('{"points": [{"checkpoint": 1}]}')
    output = shell([*TOOL, "--run", str(run), *QUICK, *arguments], expect=2)
    assert message in output and "Traceback" not in output


def test_a_run_without_a_configuration_is_named(tmp_path, shell):
    output = shell([*TOOL, "--run", str(tmp_path)], expect=2)
    assert output.startswith(f"error: {tmp_path}/config.yaml: ") and "Traceback" not in output
