"""The multi-view test: equal to a plain loop, however it is batched, shared out or interrupted."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from support.paths import ROOT
from support.runs import SMALL_RUN

from data_pipelines.video.reader import read_frames
from lookupvivit.config.loading import load_config
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.predictions import Predictions
from lookupvivit.evaluation.resume import PartialResult, restore
from lookupvivit.training.build import build_model
from lookupvivit.training.data import view_loader
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import read_manifest

WORLD = World(0, 1, torch.device("cpu"))
VIEWS = [(clip, crop) for clip in (0, 1) for crop in (0, 1, 2)] + [(-1, 1)]
STARTS, LEFTS = {0: 0, 1: 4, -1: 2}, (0, 8, 16)  # 4 of 8 frames, 64 of 80 pixels


@pytest.fixture(scope="module")
def setting(small_set):
    def build(*overrides):
        settings = (*SMALL_RUN, f"data.root={small_set}", *overrides)
        return load_config(str(ROOT / "configs" / "camera_motion.yaml"), list(settings))

    torch.manual_seed(0)
    model = build_model(build()).eval()
    for head in (model.compressed_head, model.lookup_head):  # they start as zeros
        torch.nn.init.normal_(head.weight)
    return build, model, read_manifest(build(), "val", WORLD)


def run(setting, *overrides, clips=2, crops=3, partial=None, forward=None, world=WORLD):
    build, model, manifest = setting
    config = build(*overrides)

    def both(views):
        output = model(views)
        return torch.stack([output[head] for head in model.supervised], dim=1)

    loader = view_loader(config, manifest, clips, crops, world, True, partial.done if partial else ())
    predictions, broken = predict_views(
        forward or both,
        loader,
        len(manifest),
        manifest.class_names,
        config.eval.batch_size,
        world.device,
        heads=model.supervised,
        partial=partial,
    )
    assert not broken
    return predictions


@pytest.fixture(scope="module")
def loop(setting):
    """Logits (N, V, 2, K) of a plain loop over videos and views, one at a time."""
    _, model, manifest = setting
    logits = []
    with torch.no_grad():
        for path in manifest.paths:
            frames = torch.from_numpy(read_frames(path, list(range(8)))).float() / 127.5 - 1
            for clip, crop in VIEWS:
                view = frames[STARTS[clip] : STARTS[clip] + 4, :, LEFTS[crop] : LEFTS[crop] + 64]
                output = model(view.permute(3, 0, 1, 2)[None])
                logits.append(torch.stack([output.compressed_logits[0], output.lookup_logits[0]]))
    return torch.stack(logits).unflatten(0, (len(manifest), len(VIEWS))).numpy()


def assert_equals_the_loop(predictions, loop, manifest):
    assert predictions.video_names.tolist() == list(manifest.paths)
    assert predictions.heads == ("compressed", "lookup")
    np.testing.assert_allclose(predictions.head_logits, loop, atol=1e-5)
    assert list(zip(predictions.clip_index.tolist(), predictions.aug_index.tolist(), strict=True)) == VIEWS
    frames = [[STARTS[clip] + i for i in range(4)] for clip, _ in VIEWS]
    boxes = [[0, LEFTS[crop], 64] for _, crop in VIEWS]
    assert (predictions.frame_indices == frames).all() and (predictions.boxes == boxes).all()
    labels = np.asarray(manifest.labels)
    for name, views in {"1x1": [6], "2x1": [1, 4], "2x3": range(6)}.items():
        mean = loop[:, list(views)].mean(axis=(1, 2))
        ranks = (mean > np.take_along_axis(mean, labels[:, None], 1)).sum(axis=1)
        score = predictions.summary()["views"][name]
        assert (score["top1_correct"], score["top5_correct"]) == ((ranks < 1).sum(), (ranks < 5).sum())


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (7, 2), (30, 0)])
def test_equals_a_plain_loop(setting, loop, batch, workers):
    predictions = run(setting, f"eval.batch_size={batch}", f"data.workers={workers}")
    assert_equals_the_loop(predictions, loop, setting[2])


def test_the_central_view_scores_as_a_test_of_one_view(setting):
    many, one = run(setting), run(setting, clips=1, crops=1)
    views = many.view_subsets()["1x1"]
    np.testing.assert_allclose(many.head_logits[:, views], one.head_logits, atol=1e-5)
    np.testing.assert_array_equal(many.frame_indices[:, views], one.frame_indices)
    np.testing.assert_array_equal(many.boxes[:, views], one.boxes)
    assert many.summary()["views"]["1x1"] == one.summary()["views"]["1x1"]


class Killed(BaseException):
    pass


def test_an_interrupted_test_goes_on_bit_equal(setting, tmp_path, capsys):
    straight = run(setting, "eval.batch_size=14")  # two videos at a time, the last alone
    _, model, manifest = setting
    passes = []

    def forward(views, last=10**9):
        passes.append(len(views))
        if len(passes) > last:
            raise Killed
        output = model(views)
        return torch.stack([output[head] for head in model.supervised], dim=1)

    def partial(identity=None):
        restored, told = restore(tmp_path / "2x3.partial", identity or {"checkpoint": "a", "eval.clips": 2})
        done = frozenset(restored["video_index"].tolist()) if restored else frozenset()
        return PartialResult(tmp_path / "2x3.partial", 0, restored, done), told

    with pytest.raises(Killed):  # one of two ranks: batches 0, 2, 4 are finished
        run(
            setting,
            "eval.batch_size=14",
            partial=partial()[0],
            forward=lambda v: forward(v, 3),
            world=World(0, 2, WORLD.device),
        )
    torn = sorted(tmp_path.glob("2x3.partial/*.npz"))[1]  # of videos 4 and 5
    torn.write_bytes(torn.read_bytes()[:-100])
    kept, told = partial()
    assert kept.done == {0, 1, 8, 9} and "its videos are tested again" in told[0] and "with the 4 videos" in told[1]
    passes.clear()
    resumed = run(setting, "eval.batch_size=14", partial=kept, forward=forward)
    assert sum(passes) == 9 * len(VIEWS)
    for name in (entry.name for entry in fields(Predictions)):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(straight, name))

    kept, _ = partial()  # killed between the last batch and the whole file
    assert len(kept.done) == len(manifest)
    again = run(setting, "eval.batch_size=14", partial=kept, forward=None)
    np.testing.assert_array_equal(again.head_logits, straight.head_logits)

    (tmp_path / "4x3.partial").mkdir()
    other, told = partial({"checkpoint": "b", "eval.clips": 2})
    assert not other.done and "4x3.partial: an unfinished test of other views" in told[0]
    assert told[1].endswith("not of the same thing (checkpoint a there, b here); not reused, starting anew")
    other.remove()
    assert not (tmp_path / "2x3.partial").exists()


def test_a_broken_video_is_not_kept_as_finished(tmp_path):
    partial = PartialResult(tmp_path / "p", 0, None, frozenset())
    rows = {"video_index": np.array([4, 5]), "failed": np.array(["", "5.mp4: torn"])}
    partial.add(rows)
    assert not (tmp_path / "p").exists()
    partial.add(rows | {"failed": np.array(["", ""])})
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["from_00000004.npz"]


@pytest.mark.slow
def test_killed_and_restarted_on_other_ranks(tmp_path, command, shell, signal_when):
    run = tmp_path / "run"
    shell(command("train_net.py", run, "optim.max_steps=1"))
    shell(command("test_net.py", run, "eval.save_seconds=0"))
    straight = Predictions.load(run / "predictions" / "2x3.npz")
    (run / "predictions" / "2x3.npz").unlink()

    def scored_in_part():
        return list(run.glob("predictions/2x3.partial/*.npz"))

    for launcher in ("python", "torchrun 2"):
        signal_when(scored_in_part, command("test_net.py", run, "eval.save_seconds=0"))
        assert not (run / "predictions" / "2x3.npz").exists(), "the test ended before it could be killed"
        output = shell(command("test_net.py", run, launcher=launcher))
        assert "going on with the " in output
        resumed = Predictions.load(run / "predictions" / "2x3.npz")
        for name in (entry.name for entry in fields(Predictions)):
            np.testing.assert_array_equal(getattr(resumed, name), getattr(straight, name))
        assert not (run / "predictions" / "2x3.partial").exists()
        (run / "predictions" / "2x3.npz").unlink()

    # other batches, workers and ranks: the same but for rounding
    shell(command("test_net.py", run, "eval.batch_size=7", "data.workers=2", launcher="torchrun 2"))
    other = Predictions.load(run / "predictions" / "2x3.npz")
    np.testing.assert_allclose(other.head_logits, straight.head_logits, atol=1e-5)
    assert other.summary() == straight.summary() and other.video_names.tolist() == straight.video_names.tolist()
