"""The multi-view test equals a plain loop, whatever its batches and ranks, and also after an interruption."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from support.paths import ROOT
from support.runs import SMALL_RUN, with_fault

from data_pipelines.video.reader import read_frames
from lookupvivit.config.loading import load_config
from lookupvivit.evaluation.multi_view import predict_views
from lookupvivit.evaluation.resume import PartialResult, restore
from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.training.build import build_model
from lookupvivit.training.data import view_loader
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import read_manifest

WORLD = World(0, 1, torch.device("cpu"))
VIEWS = [(clip, crop) for clip in (0, 1) for crop in (0, 1, 2)] + [(-1, 1)]
STARTS = {0: 0, 1: 4, -1: 2}  # 4 of 8 frames


def crop_box(height, width, crop):
    """Top, left and size of a crop at the start, centre or end of the longer side."""
    return (height - 64) * crop // 2, (width - 64) * crop // 2, 64


def small_config(small_set, *overrides):
    settings = (*SMALL_RUN, f"data.root={small_set}", *overrides)
    return load_config(str(ROOT / "configs" / "camera_motion.yaml"), list(settings))


@pytest.fixture(scope="module")
def manifest(small_set):
    return read_manifest(small_config(small_set), "val", WORLD)


@pytest.fixture(scope="module")
def model(small_set):
    torch.manual_seed(0)
    model = build_model(small_config(small_set)).eval()
    for classifier in (model.compressed_head, model.lookup_head):  # initially zero
        torch.nn.init.normal_(classifier.weight)
    return model


@pytest.fixture
def run(small_set, model, manifest):
    """Run a test in this process; returns its predictions."""

    def run(*overrides, clips=2, crops=3, partial=None, before_pass=None, world=WORLD):
        config = small_config(small_set, *overrides)

        def forward(views):
            if before_pass:
                before_pass(len(views))
            output = model(views)
            return torch.stack([output[classifier] for classifier in model.supervised], dim=1)

        finished = partial.finished if partial else ()
        predictions, failed = predict_views(
            forward,
            view_loader(config, manifest, clips, crops, world, centre_view=True, done=finished),
            len(manifest),
            manifest.class_names,
            config.eval.batch_size,
            world.device,
            classifiers=model.supervised,
            partial=partial,
        )
        assert not failed
        return predictions

    return run


@pytest.fixture(scope="module")
def expected_logits(model, manifest):
    """Logits (N, V, 2, K) of a plain loop over videos and views, one at a time."""
    logits = []
    with torch.no_grad():
        for path in manifest.paths:
            frames = torch.from_numpy(read_frames(path, list(range(8)))).float() / 127.5 - 1
            for clip, crop in VIEWS:
                top, left, size = crop_box(*frames.shape[1:3], crop)
                view = frames[STARTS[clip] : STARTS[clip] + 4, top : top + size, left : left + size]
                output = model(view.permute(3, 0, 1, 2)[None])
                logits.append(torch.stack([output.compressed_logits[0], output.lookup_logits[0]]))
    return torch.stack(logits).unflatten(0, (len(manifest), len(VIEWS))).numpy()


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 2), (30, 0)])
def test_equals_a_plain_loop(run, manifest, expected_logits, batch_size, workers):
    predictions = run(f"eval.batch_size={batch_size}", f"data.workers={workers}")
    assert predictions.video_names.tolist() == list(manifest.paths)
    assert predictions.classifiers == ("compressed", "lookup")
    np.testing.assert_allclose(predictions.logits, expected_logits, atol=1e-5)
    assert list(zip(predictions.clip_index.tolist(), predictions.aug_index.tolist(), strict=True)) == VIEWS
    frames = [[STARTS[clip] + i for i in range(4)] for clip, _ in VIEWS]
    sizes = [read_frames(path, [0]).shape[1:3] for path in manifest.paths]
    boxes = [[crop_box(*size, crop) for _, crop in VIEWS] for size in sizes]
    assert (predictions.frame_indices == frames).all() and (predictions.boxes == boxes).all()
    labels = np.asarray(manifest.labels)
    for name, views in {"1x1": [6], "2x1": [1, 4], "2x3": range(6)}.items():
        mean = expected_logits[:, list(views)].mean(axis=(1, 2))
        ranks = (mean > np.take_along_axis(mean, labels[:, None], 1)).sum(axis=1)
        scores = predictions.summary()["views"][name]
        assert (scores["top1_correct"], scores["top5_correct"]) == ((ranks < 1).sum(), (ranks < 5).sum())


def test_the_additional_centre_view_is_that_of_a_1x1_test(run):
    many, single = run(), run(clips=1, crops=1)
    views = many.view_subsets()["1x1"]
    np.testing.assert_allclose(many.logits[:, views], single.logits, atol=1e-5)
    np.testing.assert_array_equal(many.frame_indices[:, views], single.frame_indices)
    np.testing.assert_array_equal(many.boxes[:, views], single.boxes)
    assert many.summary()["views"]["1x1"] == single.summary()["views"]["1x1"]


class Killed(BaseException):
    pass


def test_an_interrupted_test_continues_bit_identically(run, manifest, tmp_path):
    two_videos = f"eval.batch_size={2 * len(VIEWS)}"  # per forward pass; the last batch has one
    expected = run(two_videos)
    passes = []

    def restored_result():
        columns, _ = restore(tmp_path / "2x3.partial", {"checkpoint": "a"})
        finished = frozenset(columns["video_index"].tolist()) if columns else frozenset()
        return PartialResult(tmp_path / "2x3.partial", 0, columns, finished)

    def kill_in_fourth_pass(num_views):
        passes.append(num_views)
        if len(passes) == 4:
            raise Killed

    with pytest.raises(Killed):  # rank 0 of 2 has finished the batches 0, 2 and 4
        run(two_videos, partial=restored_result(), before_pass=kill_in_fourth_pass, world=World(0, 2, WORLD.device))
    _, second, _ = sorted(tmp_path.glob("2x3.partial/*.npz"))
    second.write_bytes(second.read_bytes()[:-100])  # videos 4 and 5
    partial = restored_result()
    assert partial.finished == {0, 1, 8, 9}
    passes.clear()
    resumed = run(two_videos, partial=partial, before_pass=passes.append)
    assert sum(passes) == 9 * len(VIEWS)
    assert_same_predictions(resumed, expected)

    partial = restored_result()  # killed after the last batch, before the complete result was saved
    assert len(partial.finished) == len(manifest)
    passes.clear()
    assert_same_predictions(run(two_videos, partial=partial, before_pass=passes.append), expected)
    assert not passes


def test_ctrl_c_keeps_the_finished_videos(run, tmp_path):
    def interrupt_in_third_pass(num_views):
        passes.append(num_views)
        if len(passes) == 3:
            raise KeyboardInterrupt

    passes = []
    partial = PartialResult(tmp_path / "2x3.partial", 1000, None, frozenset())
    with pytest.raises(KeyboardInterrupt):
        run(f"eval.batch_size={2 * len(VIEWS)}", partial=partial, before_pass=interrupt_in_third_pass)
    columns, _ = restore(tmp_path / "2x3.partial", {"checkpoint": "a"})
    assert columns["video_index"].tolist() == [0, 1, 2, 3]


def assert_same_predictions(predictions, expected):
    """Bit for bit."""
    for entry in fields(Predictions):
        np.testing.assert_array_equal(getattr(predictions, entry.name), getattr(expected, entry.name))


@pytest.mark.slow
def test_a_killed_test_continues_on_another_number_of_ranks(tmp_path, command, shell, signal_when):
    run = tmp_path / "run"
    file, partial = run / "predictions" / "2x3.npz", run / "predictions" / "2x3.partial"
    shell(command("train_net.py", run, "optim.max_steps=1"))
    shell(command("test_net.py", run, "eval.save_seconds=0"))
    expected = Predictions.load(file)
    file.unlink()

    def some_videos_finished():
        return list(partial.glob("*.npz"))

    for launcher in ("python", "torchrun 2"):
        slow = with_fault(command("test_net.py", run, "eval.save_seconds=0"), "slow_test")
        signal_when(some_videos_finished, slow)
        assert not file.exists(), "the test ended before it could be killed"
        output = shell(command("test_net.py", run, launcher=launcher))
        assert f"finished videos of {partial}" in output
        assert_same_predictions(Predictions.load(file), expected)
        assert not partial.exists()
        file.unlink()

    # With other batches, workers and ranks, only rounding differs.
    shell(command("test_net.py", run, "eval.batch_size=7", "data.workers=2", launcher="torchrun 2"))
    other = Predictions.load(file)
    np.testing.assert_allclose(other.logits, expected.logits, atol=1e-5)
    assert other.summary() == expected.summary() and other.video_names.tolist() == expected.video_names.tolist()
