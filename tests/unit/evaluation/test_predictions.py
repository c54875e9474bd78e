import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.sampling import Sampling
from lookupvivit.evaluation.predictions import Predictions, PredictionsError, clips_of_a_shorter_run


def make(clips=4, crops=3, videos=20, classes=7, seed=0, central=False) -> Predictions:
    rng = np.random.default_rng(seed)
    pairs = [(clip, crop) for clip in range(clips) for crop in range(crops)] + [(-1, crops // 2)] * central
    pairs = np.array(pairs)[rng.permutation(len(pairs))]  # no order is promised
    return Predictions(
        video_names=np.array([f"vidéo {i}.mp4" for i in range(videos)]),
        labels=rng.integers(0, classes, videos),
        head_logits=rng.normal(size=(videos, len(pairs), 2, classes)).astype(np.float32),
        heads=("compressed", "lookup"),
        clip_index=pairs[:, 0],
        aug_index=pairs[:, 1],
        frame_indices=rng.integers(0, 99, (videos, len(pairs), 8)),
        boxes=rng.integers(0, 99, (videos, len(pairs), 3)),
        class_names=tuple(f"class {k}" for k in range(classes)),
        facts={"broken_videos": {"é.mp4": "é.mp4: torn"}, "missing_videos": 2},
    )


def test_a_file_gives_back_every_bit(tmp_path):
    written = make()
    written.save(tmp_path / "new folder" / "4x3.npz")
    read = Predictions.load(tmp_path / "new folder" / "4x3.npz")
    arrays = ("video_names", "labels", "head_logits", "clip_index", "aug_index", "frame_indices", "boxes")
    for name in arrays:
        before, after = getattr(written, name), getattr(read, name)
        assert before.dtype == after.dtype and np.array_equal(before, after)
    assert (read.class_names, read.heads, read.facts) == (written.class_names, written.heads, written.facts)
    with np.load(tmp_path / "new folder" / "4x3.npz", allow_pickle=False) as notebook:  # NumPy alone
        mean = notebook["head_logits"].mean(axis=(1, 2))
        np.testing.assert_allclose(mean, written.video_logits(), rtol=1e-4, atol=1e-6)
        assert json.loads(str(notebook["facts"])) == written.facts
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["4x3.npz"]


def test_every_truncation_and_a_pickle_are_one_clear_error(tmp_path):
    path = tmp_path / "p.npz"
    make(videos=3).save(path)
    whole = path.read_bytes()
    for size in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(PredictionsError, match=r"p\.npz"):
            Predictions.load(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(PredictionsError, match=r"p\.npz"):
        Predictions.load(path)
    np.savez(path, labels=np.array([object()]))
    with pytest.raises(PredictionsError, match=r"p\.npz"):
        Predictions.load(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(PredictionsError, match=r"p\.npy"):
        Predictions.load(path.with_suffix(".npy"))
    with pytest.raises(FileNotFoundError):
        Predictions.load(tmp_path / "absent.npz")


def test_video_logits_is_the_mean_over_exactly_the_chosen_views():
    predictions = make(central=True)
    regular = np.flatnonzero(predictions.clip_index >= 0)
    for views in ([1], [0, 3, 12], regular):
        for head, logits in (("compressed", predictions.head_logits[:, :, 0]), ("both", predictions.view_logits)):
            expected = sum(logits[:, view].astype(float) for view in views) / len(views)
            np.testing.assert_allclose(predictions.video_logits(views, head), expected, rtol=1e-6, atol=1e-7)
            torch_says = torch.from_numpy(logits[:, views]).double().softmax(dim=-1).mean(dim=1).numpy()
            np.testing.assert_allclose(predictions.video_logits(views, head, "softmax"), torch_says, atol=1e-6)
    assert np.array_equal(predictions.video_logits(), predictions.video_logits(regular))
    with pytest.raises(PredictionsError, match="head: found 'lookups', must be one of both, compressed, lookup"):
        predictions.video_logits(head="lookups")
    with pytest.raises(PredictionsError, match="average: found 'max', must be one of logits, softmax"):
        predictions.video_logits(average="max")


def test_raw_logits_are_averaged_not_probabilities():
    # One view is very sure of class 0, two are mildly for class 1: logits follow the first, softmax the two.
    logits = np.array([[[9.0, 0.0], [0.0, 3.0], [0.0, 3.0]]], np.float32)
    predictions = replace(
        make(3, 1, 1, 2), labels=[0], head_logits=logits[:, :, None], heads=("logits",), clip_index=[0, 1, 2]
    )
    assert predictions.video_logits().argmax() == 0
    assert predictions.video_logits(average="softmax").argmax() == 1


def test_view_subsets_of_the_usual_protocols():
    predictions = make(central=True)
    views = np.stack([predictions.clip_index, predictions.aug_index], axis=1)
    chosen = {name: sorted(map(tuple, views[at].tolist())) for name, at in predictions.view_subsets().items()}
    assert chosen == {
        "1x1": [(-1, 1)],
        "2x1": [(clip, 1) for clip in (0, 3)],
        "2x3": [(clip, crop) for clip in (0, 3) for crop in range(3)],
        "4x1": [(clip, 1) for clip in range(4)],
        "4x3": [(clip, crop) for clip in range(4) for crop in range(3)],
    }
    odd = make(clips=3, crops=3)
    assert list(odd.view_subsets()) == ["1x1", "1x3", "2x1", "2x3", "3x1", "3x3"]
    assert [odd.clip_index[at].tolist() for at in odd.view_subsets().values()][:2] == [[1], [1, 1, 1]]
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
def test_a_shorter_run_reads_the_frames_of_the_clips_that_stand_for_it(length, frames, stride, total, count, segments):
    sampling = Sampling(frames, stride, segments=segments)
    places = clips_of_a_shorter_run(total, min(count, total), segments)
    if places is not None:
        ours, theirs = (sampling.test_clips(length, Fraction(25), n) for n in (total, min(count, total)))
        np.testing.assert_array_equal(ours[places], theirs)


def test_summary_counts():
    predictions = make(clips=3, crops=3, videos=8, classes=6)
    logits = np.zeros_like(predictions.head_logits)
    logits[np.arange(8), :, :, predictions.labels] = 1.0  # right ...
    logits[:3] = np.where(np.arange(6) == predictions.labels[:3, None, None, None], -1.0, 0.0)  # ... but for 3
    central = (predictions.clip_index == 1) & (predictions.aug_index == 1)
    logits[0, central, :, predictions.labels[0]] = 100.0  # one view alone is right about video 0, and outvotes all
    summary = replace(predictions, head_logits=logits).summary()
    assert (summary["videos"], summary["classes"]) == (8, 6)
    assert set(summary["views"]) == {"1x1", "1x3", "2x1", "2x3", "3x1", "3x3"}
    right = np.isin(np.arange(8), [0, 3, 4, 5, 6, 7])
    by_class = [right[predictions.labels == c].mean() for c in np.unique(predictions.labels)]
    for name, scores in summary["views"].items():
        if name.startswith("2"):
            continue  # without the central clip
        low, high = scores.pop("top1_interval")
        assert (low, high) == pytest.approx((40.93, 92.85), abs=0.01)  # Wilson, 6 of 8
        assert scores.pop("mean_class_top1") == pytest.approx(100 * np.mean(by_class))
        assert scores == {"top1_correct": 6, "top1": 75.0, "top5_correct": 6, "top5": 75.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(20, 7)}, r"label of video 'vidéo 0.mp4' must lie in \[0, 7\), found 7"),
        ({"labels": np.zeros(3)}, r"labels must have shape \(20,\), found \(3,\)"),
        ({"video_names": np.array(["same"] * 20)}, "video 'same' occurs more than once"),
        ({"clip_index": np.zeros(12)}, "every clip with every crop once"),
        ({"class_names": ("one",)}, "7 classes but 1 class names"),
        ({"head_logits": np.zeros((20, 7))}, r"\(N, V, S, K\), found shape \(20, 7\)"),
        ({"boxes": np.zeros((20, 12, 4))}, r"boxes must have shape \(20, 12, 3\), found \(20, 12, 4\)"),
        ({"heads": ("one",)}, "logits of 2 heads but 1 names of heads"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(PredictionsError, match=message):
        replace(make(), **change)


def test_nan_logits_are_never_scored():
    predictions = make()
    predictions.head_logits[4, 2, 1] = np.nan
    with pytest.raises(PredictionsError, match=r"1 of 20 videos hold NaN, first of 'vidéo 4\.mp4'"):
        predictions.summary()
