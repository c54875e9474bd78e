"""Token keeping on static footage, against explicit indices of the kept tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support.in_process import run_tool
from support.saved_models import save_random_model

import lookupvivit
from data_pipelines.datasets.camera_motion.encoding import Encoding, write_video
from lookupvivit.evidence.static_footage import RULES, Rule, measure, measure_batch, random_tokens, relative_change

GRID = (4, 8, 8)  # tokens of a clip of 8 x 64 x 64 with a tubelet of 2 x 8 x 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    preprocessing = {"frames": 8, "stride": 1, "short_side": 64, "crop": 64, "range": [-1, 1]}
    return lookupvivit.load_model(save_random_model(tmp_path_factory.mktemp("run"), preprocessing=preprocessing))


@pytest.fixture(scope="module")
def videos():
    """Two still clips: nothing changes in the first, and 5 and 7 tubelets of the last two frames in the second."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.rand(2, 3, 1, 64, 64, generator=generator) - 0.5
    videos = scene.repeat(1, 1, 8, 1, 1)
    videos[1, :, 4:6, :8, :40] += 0.2
    videos[1, :, 6:8] = videos[1, :, 4:6]
    videos[1, :, 6:8, 8:16, :56] += 0.2
    return videos


def changed_tokens(video, threshold):
    """Indices of the first frame's tokens and of those that change, by loops."""
    kept = list(range(64))
    for t in range(1, 4):
        for h in range(8):
            for w in range(8):
                place = (slice(None), slice(8 * h, 8 * h + 8), slice(8 * w, 8 * w + 8))
                now, before = (video[:, 2 * i : 2 * i + 2][:, :, place[1], place[2]].double() for i in (t, t - 1))
                if (now - before).abs().mean() > threshold:
                    kept.append(64 * t + 8 * h + w)
    return kept


def expected_change(model, video, kept):
    """Relative change of the centred logits of one clip, in NumPy."""
    with torch.no_grad():
        full = model(video[None]).logits[0].double().numpy()
        part = model(video[None], keep=torch.as_tensor(kept)[None]).logits[0].double().numpy()
    difference = (part - part.mean()) - (full - full.mean())
    return np.linalg.norm(difference) / np.linalg.norm(full - full.mean()), float(part.argmax() != full.argmax())


def test_a_threshold_keeps_what_changes_and_the_largest_count_of_a_batch(model, videos):
    kept = [changed_tokens(video, 0.1) for video in videos]
    assert [len(each) for each in kept] == [64, 64 + 12]
    rule = Rule(threshold=0.1)
    for video, indices in zip(videos, kept, strict=True):
        (result,) = measure_batch(model, video[None], [rule], num_random=3, rounds=1)
        assert result.share == len(indices) / 256
        change, flip = expected_change(model, video, indices)
        assert result.changes["motion"] == pytest.approx([change], rel=1e-4) and result.flips["motion"] == [flip]
    (result,) = measure_batch(model, videos, [rule], num_random=0, rounds=1)
    assert result.share == 76 / 256 and not result.changes


def test_random_and_uniform_keeping_have_the_same_number_of_tokens(model, videos):
    _, result = measure_batch(model, videos, [Rule(0.3), Rule(0.5)], num_random=3, rounds=2)
    assert result.share == 0.5
    for i, video in enumerate(videos):
        random = [expected_change(model, video, random_tokens(256, 128, seed)[0]) for seed in range(3)]
        assert result.changes["random"][i] == pytest.approx(np.mean([change for change, _ in random]), rel=1e-4)
        assert result.flips["random"][i] == pytest.approx(np.mean([flip for _, flip in random]))
        change, flip = expected_change(model, video, model.select_tokens(video[None], "uniform:0.5")[0])
        assert result.changes["uniform"][i] == pytest.approx(change, rel=1e-4) and result.flips["uniform"][i] == flip
    assert {name: len(times) for name, times in result.times.items()} == {"full": 2, "motion": 2, "uniform": 2}
    assert len({tuple(random_tokens(256, 128, seed)[0].tolist()) for seed in range(3)}) == 3
    assert random_tokens(256, 256, 0)[0].sort().values.tolist() == list(range(256))


def test_keeping_all_tokens_changes_nothing(model, videos):
    (result,) = measure_batch(model, videos, [Rule(1.0)], num_random=1, rounds=1)
    assert result.share == 1 and result.changes["motion"] == result.changes["uniform"] == [0, 0]
    assert max(result.changes["random"]) < 1e-4  # the same tokens in another order


def test_the_change_ignores_what_the_softmax_ignores():
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 3.0]])
    assert relative_change(logits + 5, logits) == pytest.approx([0, 0], abs=1e-6)
    assert relative_change(3 * logits, logits) == pytest.approx([2, 2], rel=1e-6)


def test_rows_are_over_all_clips_of_a_set(model, videos):
    batches = [(each[None] * 127.5 + 127.5).byte() for each in videos]
    rows = measure(model, "two clips", batches, num_random=1, rounds=1)
    assert (
        [row.rule for row in rows]
        == list(map(str, RULES))
        == [
            "motion:0.3",
            "motion:0.5",
            "threshold 0.05",
            "threshold 0.1",
        ]
    )
    assert rows[3].batches == 2 and rows[3].share == pytest.approx((64 / 256, 70 / 256, 76 / 256))


def test_the_command_measures_labelled_videos(tmp_path, monkeypatch, capsys):
    frames = np.random.default_rng(0).integers(0, 255, (1, 64, 80, 3), dtype=np.uint8).repeat(12, 0)
    write_video(tmp_path / "still.mp4", frames, Encoding())
    (tmp_path / "my.csv").write_text("path,start,end,class\nstill.mp4,,,still\nstill.mp4,,,shake\n", encoding="utf-8")
    run = save_random_model(tmp_path / "run")
    arguments = ["rendered", tmp_path / "my.csv", "--run", run, "--clips", 2, "--batch-size", 2, "--rounds", 1]
    arguments += ["--output", tmp_path / "results"]
    status, output, errors = run_tool(monkeypatch, capsys, "static_footage.py", *arguments)
    assert not status, errors
    report = json.loads((tmp_path / "results" / "static_footage.json").read_text(encoding="utf-8"))
    assert [row["clips"] for row in report["rows"]] == ["rendered"] * 4 + [str(tmp_path / "my.csv")] * 4
    still = report["rows"][-1]
    assert still["batches"] == 1 and still["share"] == [0.5, 0.5, 0.5]  # the first of two frames of tokens
    assert (tmp_path / "results" / "static_footage.md").read_text(encoding="utf-8") in output

    (tmp_path / "my.csv").write_text("path,start,end,class\nstill.mp4,,,shake\n", encoding="utf-8")
    status, _, errors = run_tool(monkeypatch, capsys, "static_footage.py", *arguments)
    assert status == 2 and "my.csv: found no video of the class still, expected at least one" in errors
    status, _, errors = run_tool(monkeypatch, capsys, "static_footage.py", "--untrained", "lookupvivit_b", *arguments)
    assert status == 2 and "--untrained: name: found 'lookupvivit_b'" in errors
