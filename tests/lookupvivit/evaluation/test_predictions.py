from dataclasses import replace

import numpy as np
import pytest

from lookupvivit.evaluation.predictions import Predictions, PredictionsError


def make(clips=4, crops=3, videos=20, classes=7, seed=0) -> Predictions:
    rng = np.random.default_rng(seed)
    pairs = np.array([(clip, crop) for clip in range(clips) for crop in range(crops)])
    pairs = pairs[rng.permutation(len(pairs))]  # no order is promised
    return Predictions(
        np.array([f"vidéo {i}.mp4" for i in range(videos)]),
        rng.integers(0, classes, videos),
        rng.normal(size=(videos, len(pairs), classes)).astype(np.float32),
        pairs[:, 0],
        pairs[:, 1],
        tuple(f"class {k}" for k in range(classes)),
    )


def test_a_file_gives_back_every_bit(tmp_path):
    written = make()
    written.save(tmp_path / "new folder" / "4x3.npz")
    read = Predictions.load(tmp_path / "new folder" / "4x3.npz")
    for name in ("video_names", "labels", "view_logits", "clip_index", "aug_index"):
        before, after = getattr(written, name), getattr(read, name)
        assert before.dtype == after.dtype and np.array_equal(before, after)
    assert read.class_names == written.class_names
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
    predictions = make()
    views = list(zip(predictions.clip_index.tolist(), predictions.aug_index.tolist(), strict=True))
    for clips, crops in (([1], [1]), ([0, 3], [0, 2]), (range(4), range(3))):
        total = np.zeros((20, 7))
        for clip in clips:
            for crop in crops:
                total += predictions.view_logits[:, views.index((clip, crop))]
        expected = total / (len(clips) * len(crops))
        np.testing.assert_allclose(predictions.video_logits(clips, crops), expected, rtol=1e-6, atol=1e-7)
    assert np.array_equal(predictions.video_logits(), predictions.video_logits(range(4), range(3)))
    with pytest.raises(PredictionsError, match=r"choose among clips \[0, 1, 2, 3\], found \[4\]"):
        predictions.video_logits(clips=[4])


def test_raw_logits_are_averaged_not_probabilities():
    # One view is very sure of class 0, two are mildly for class 1: logits follow the first, softmax the two.
    logits = np.array([[[9.0, 0.0], [0.0, 3.0], [0.0, 3.0]]], np.float32)
    predictions = Predictions(["v"], [0], logits, [0, 1, 2], [0, 0, 0], ("a", "b"))
    assert predictions.video_logits().argmax() == 0


def test_view_subsets_of_the_usual_protocols():
    predictions = make()
    views = np.stack([predictions.clip_index, predictions.aug_index], axis=1)
    chosen = {
        name: sorted(map(tuple, views[at].tolist())) for name, at in predictions.view_subsets().items()
    }
    assert chosen == {
        "4x1": [(clip, 1) for clip in range(4)],
        "4x3": [(clip, crop) for clip in range(4) for crop in range(3)],
    }
    odd = make(clips=3, crops=3)
    assert list(odd.view_subsets()) == ["1x1", "1x3", "3x1", "3x3"]
    assert [odd.clip_index[at].tolist() for at in odd.view_subsets().values()][:2] == [[1], [1, 1, 1]]
    assert list(make(clips=1, crops=1).view_subsets()) == ["1x1"]
    assert list(make(clips=1, crops=3).view_subsets()) == ["1x1", "1x3"]


def test_summary_counts():
    predictions = make(clips=3, crops=3, videos=8, classes=6)
    logits = np.zeros_like(predictions.view_logits)
    logits[np.arange(8), :, predictions.labels] = 1.0  # right ...
    logits[:3, :, :] = np.where(np.arange(6) == predictions.labels[:3, None, None], -1.0, 0.0)  # ... but for 3
    central = (predictions.clip_index == 1) & (predictions.aug_index == 1)
    logits[0, central, predictions.labels[0]] = 100.0  # one view alone is right about video 0, and outvotes all
    summary = replace(predictions, view_logits=logits).summary()
    assert (summary["videos"], summary["classes"]) == (8, 6)
    assert set(summary["views"]) == {"1x1", "1x3", "3x1", "3x3"}
    right = np.isin(np.arange(8), [0, 3, 4, 5, 6, 7])
    by_class = [right[predictions.labels == c].mean() for c in np.unique(predictions.labels)]
    for scores in summary["views"].values():
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
        ({"view_logits": np.zeros((20, 7))}, r"\(N, V, K\), found shape \(20, 7\)"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(PredictionsError, match=message):
        replace(make(), **change)


def test_nan_logits_are_never_scored():
    predictions = make()
    predictions.view_logits[4, 2] = np.nan
    with pytest.raises(PredictionsError, match=r"1 of 20 videos hold NaN, first of 'vidéo 4\.mp4'"):
        predictions.summary()
