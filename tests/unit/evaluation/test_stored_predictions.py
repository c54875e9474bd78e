"""Stored predictions: files, averages over views, subsets of views, and exact scores."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.sampling import Sampling
from lookupvivit.evaluation.array_files import PredictionsError
from lookupvivit.evaluation.stored_predictions import Predictions, clips_of_shorter_test


def make(clips=4, crops=3, videos=20, classes=7, with_centre=False) -> Predictions:
    rng = np.random.default_rng(0)
    views = [(clip, crop) for clip in range(clips) for crop in range(crops)] + [(-1, crops // 2)] * with_centre
    views = np.array(views)[rng.permutation(len(views))]  # their order is not specified
    return Predictions(
        video_names=np.array([f"vidéo {i}.mp4" for i in range(videos)]),
        labels=rng.integers(0, classes, videos),
        logits=rng.normal(size=(videos, len(views), 2, classes)).astype(np.float32),
        classifiers=("compressed", "lookup"),
        clip_index=views[:, 0],
        aug_index=views[:, 1],
        frame_indices=rng.integers(0, 99, (videos, len(views), 8)),
        boxes=rng.integers(0, 99, (videos, len(views), 3)),
        class_names=tuple(f"class {k}" for k in range(classes)),
        facts={"broken_videos": {"é.mp4": "é.mp4: torn"}, "missing_videos": 2},
    )


def test_a_file_restores_every_bit(tmp_path):
    saved, file = make(), tmp_path / "new folder" / "4x3.npz"
    saved.save(file)
    loaded = Predictions.load(file)
    for name in ("video_names", "labels", "logits", "clip_index", "aug_index", "frame_indices", "boxes"):
        before, after = getattr(saved, name), getattr(loaded, name)
        assert before.dtype == after.dtype and np.array_equal(before, after)
    assert loaded.class_names == saved.class_names and loaded.classifiers == saved.classifiers
    assert loaded.facts == saved.facts
    assert [path.name for path in file.parent.iterdir()] == ["4x3.npz"]


def test_files_have_the_documented_arrays(tmp_path):
    """Files of version 0.1 have these names; NumPy alone reads them."""
    saved = make()
    saved.save(tmp_path / "4x3.npz")
    with np.load(tmp_path / "4x3.npz", allow_pickle=False) as arrays:
        mean = arrays["head_logits"].mean(axis=(1, 2))
        np.testing.assert_allclose(mean, saved.video_logits(), rtol=1e-4, atol=1e-6)
        assert arrays["heads"].tolist() == ["compressed", "lookup"]
        assert json.loads(str(arrays["facts"])) == saved.facts
        names = {"video_names", "labels", "head_logits", "heads", "clip_index", "aug_index", "frame_indices", "boxes"}
        assert set(arrays.files) == names | {"class_names", "facts"}


def test_corrupt_and_other_files_are_errors_that_name_the_file(tmp_path):
    file = tmp_path / "p.npz"
    make(videos=3).save(file)
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 0xFF
    truncated = [content[:size] for size in (0, 1, 10, len(content) // 2, len(content) - 1)]
    for corrupt in (*truncated, bytes(flipped)):
        file.write_bytes(corrupt)
        with pytest.raises(PredictionsError, match=r"p\.npz"):
            Predictions.load(file)
    np.savez(file, labels=np.array([object()]))  # a pickle
    with pytest.raises(PredictionsError, match=r"p\.npz"):
        Predictions.load(file)
    np.save(tmp_path / "p.npy", np.zeros(3))
    with pytest.raises(PredictionsError, match=r"p\.npy"):
        Predictions.load(tmp_path / "p.npy")
    with pytest.raises(FileNotFoundError):
        Predictions.load(tmp_path / "missing.npz")


def test_video_logits_are_the_mean_over_exactly_the_selected_views():
    predictions = make(with_centre=True)
    regular = np.flatnonzero(predictions.clip_index >= 0)
    for views in ([1], [0, 3, 12], regular):
        for classifier, logits in (("compressed", predictions.logits[:, :, 0]), ("both", predictions.view_logits)):
            expected = sum(logits[:, view].astype(float) for view in views) / len(views)
            np.testing.assert_allclose(predictions.video_logits(views, classifier), expected, rtol=1e-6, atol=1e-7)
            probabilities = torch.from_numpy(logits[:, views]).double().softmax(dim=-1).mean(dim=1).numpy()
            np.testing.assert_allclose(predictions.video_logits(views, classifier, "softmax"), probabilities, atol=1e-6)
    assert np.array_equal(predictions.video_logits(), predictions.video_logits(regular))


def test_unknown_classifiers_and_averages_are_errors():
    with pytest.raises(PredictionsError, match=r"classifier: found 'lookups', .*both, compressed, lookup"):
        make().video_logits(classifier="lookups")
    with pytest.raises(PredictionsError, match=r"average: found 'max', .*logits, softmax"):
        make().video_logits(average="max")


def test_raw_logits_are_averaged_by_default():
    """One view is very confident of class 0, two are slightly in favour of class 1."""
    logits = np.array([[[9.0, 0.0], [0.0, 3.0], [0.0, 3.0]]], np.float32)[:, :, None]
    predictions = replace(make(3, 1, 1, 2), labels=[0], logits=logits, classifiers=("logits",), clip_index=[0, 1, 2])
    assert predictions.video_logits().argmax() == 0
    assert predictions.video_logits(average="softmax").argmax() == 1


def test_view_subsets_of_a_4x3_test():
    predictions = make(with_centre=True)
    views = np.stack([predictions.clip_index, predictions.aug_index], axis=1)
    subsets = {name: sorted(map(tuple, views[at].tolist())) for name, at in predictions.view_subsets().items()}
    assert subsets == {
        "1x1": [(-1, 1)],
        "2x1": [(clip, 1) for clip in (0, 3)],
        "2x3": [(clip, crop) for clip in (0, 3) for crop in range(3)],
        "4x1": [(clip, 1) for clip in range(4)],
        "4x3": [(clip, crop) for clip in range(4) for crop in range(3)],
    }


def test_view_subsets_of_other_tests():
    odd = make(clips=3, crops=3)
    assert list(odd.view_subsets()) == ["1x1", "1x3", "2x1", "2x3", "3x1", "3x3"]
    assert odd.clip_index[odd.view_subsets()["1x3"]].tolist() == [1, 1, 1]
    assert list(make(clips=1, crops=1).view_subsets()) == ["1x1"]
    assert list(make(clips=1, crops=3).view_subsets()) == ["1x1", "1x3"]


@settings(deadline=None)
@given(
    length=st.integers(1, 400),
    frames=st.integers(1, 9),
    stride=st.integers(1, 4),
    total=st.integers(1, 12),
    count=st.integers(1, 12),
    segments=st.booleans(),
)
def test_a_shorter_test_reads_the_frames_of_its_clips(length, frames, stride, total, count, segments):
    sampling, count = Sampling(frames, stride, segments=segments), min(count, total)
    positions = clips_of_shorter_test(total, count, segments)
    if positions is not None:
        all_clips, clips = (sampling.test_clips(length, Fraction(25), number) for number in (total, count))
        np.testing.assert_array_equal(all_clips[positions], clips)


def test_summary_counts_correct_videos():
    """Of 8 videos, 6 are correct in all subsets with the central clip; one of them only due to its central view."""
    predictions = make(clips=3, crops=3, videos=8, classes=6)
    logits = np.zeros_like(predictions.logits)
    logits[np.arange(8), :, :, predictions.labels] = 1.0
    logits[:3] = np.where(np.arange(6) == predictions.labels[:3, None, None, None], -1.0, 0.0)  # wrong in all views
    centre = (predictions.clip_index == 1) & (predictions.aug_index == 1)
    logits[0, centre, :, predictions.labels[0]] = 100.0
    summary = replace(predictions, logits=logits).summary()
    assert (summary["videos"], summary["classes"]) == (8, 6)
    assert set(summary["views"]) == {"1x1", "1x3", "2x1", "2x3", "3x1", "3x3"}
    correct = np.isin(np.arange(8), [0, 3, 4, 5, 6, 7])
    per_class = [correct[predictions.labels == label].mean() for label in np.unique(predictions.labels)]
    for name in ("1x1", "1x3", "3x1", "3x3"):
        scores = summary["views"][name]
        assert scores.pop("top1_interval") == pytest.approx([40.93, 92.85], abs=0.01)  # Wilson, 6 of 8
        assert scores.pop("mean_class_top1") == pytest.approx(100 * np.mean(per_class))
        assert scores == {"top1_correct": 6, "top1": 75.0, "top5_correct": 6, "top5": 75.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(20, 7)}, r"labels: found 7 for video 'vidéo 0.mp4'"),
        ({"labels": np.zeros(3)}, r"labels: found shape \(3,\), expected \(20,\)"),
        ({"video_names": np.array(["same"] * 20)}, "video_names: found 'same'"),
        ({"clip_index": np.zeros(12)}, "views: "),
        ({"class_names": ("one",)}, "class_names: found 1 names, .*7"),
        ({"logits": np.zeros((20, 7))}, r"logits: found shape \(20, 7\)"),
        ({"boxes": np.zeros((20, 12, 4))}, r"boxes: found shape \(20, 12, 4\), expected \(20, 12, 3\)"),
        ({"classifiers": ("one",)}, "classifiers: found 1 names, .*2"),
    ],
)
def test_contradictions_are_errors(change, message):
    with pytest.raises(PredictionsError, match=message):
        replace(make(), **change)


def test_nan_logits_are_not_scored():
    predictions = make()
    predictions.logits[4, 2, 1] = np.nan
    with pytest.raises(PredictionsError, match=r"NaN for 1 of 20 videos.*'vidéo 4\.mp4'"):
        predictions.summary()
