"""Attention to objects: clips whose object is known, and the measurement against loops over the attention matrices."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from support.in_process import run_tool
from support.saved_models import save_random_model

import lookupvivit
from data_pipelines.datasets.camera_motion.encoding import Encoding, write_video
from data_pipelines.io.errors import DataError
from data_pipelines.preprocess import Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.evidence.object_attention import ObjectAttention, measure, untrained_like
from lookupvivit.evidence.object_clips import changed_pixels, recorded_pairs, rendered_pairs
from lookupvivit.evidence.rendered import still_clips

PREPROCESS = Preprocess(Sampling(4, 1), 64, 64)


@pytest.fixture(scope="module")
def pairs():
    return list(rendered_pairs(PREPROCESS, 3))


def test_moving_and_frozen_clips_differ_only_where_the_object_is(pairs):
    for pair in pairs:
        assert pair.moving.video.shape == (3, 4, 64, 64) and pair.moving.mask.shape == (4, 64, 64)
        different = (pair.moving.video.int() - pair.frozen.video.int()).abs().amax(0).numpy() > 0
        either = (pair.moving.mask > 0) | (pair.frozen.mask > 0)
        # A defocused camera mixes neighbouring pixels, and a mask of 255 levels hides edges below half a level.
        near = ndimage.binary_dilation(either, np.ones((1, 5, 5)))
        assert different.any() and not (different & ~near).any()
        assert 0.02 <= pair.moving.mask.mean() <= 0.5


def test_the_frozen_object_has_the_camera_s_jitter_only(pairs):
    for pair in pairs:
        motion, jitter = (np.abs(np.diff(clip.mask, axis=0)).mean() for clip in pair)
        assert jitter < 0.5 * motion


def test_clips_have_the_frame_rate_and_length_of_the_model():
    for stride, target_fps, fps in ((1, None, 12), (2, None, 6), (1, 24.0, 24)):
        preprocess = Preprocess(Sampling(6, stride, target_fps), 32, 32)
        (_, clip), *_ = islice(still_clips(preprocess), 1)
        assert clip.encoding.fps == fps and len(clip.camera.poses) == 6 and min(clip.height, clip.width) == 32


def test_changed_pixels_are_those_of_a_moving_square():
    scene = torch.randint(0, 200, (3, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    video, expected = scene.repeat(1, 8, 1, 1), np.zeros((8, 32, 32))
    for frame in range(8):
        video[:, frame, 4:8, 4 * frame : 4 * frame + 4] = 255
        expected[frame, 4:8, 4 * frame : 4 * frame + 4] = 1
    assert np.array_equal(changed_pixels(video), expected)


def test_ratios_are_those_of_the_attention_matrices(pairs, tmp_path):
    model = lookupvivit.load_model(save_random_model(tmp_path / "run", depth=2))
    others = untrained_like(model, 2)
    result = measure({"trained": [model], "untrained": others}, pairs)
    assert result.ratios.shape == (3, 2, 2, 2)
    expected = np.zeros((3, 2, 2, 2))
    for i, pair in enumerate(pairs):
        for j, clip in enumerate(pair):
            for group, models in enumerate(([model], others)):
                for each in models:
                    with torch.no_grad():
                        output = each(to_model_input(clip.video)[None], return_intermediates=True)
                    for block, tensors in enumerate(output.intermediates):
                        attention = tensors["attention"][0].mean((0, 1, 2, 3)).double()  # (2, 8, 8)
                        per_pixel = attention.repeat_interleave(2, 0).repeat_interleave(8, 1).repeat_interleave(8, 2)
                        mass = float((per_pixel / (2 * 8 * 8) * torch.from_numpy(clip.mask)).sum())
                        expected[i, group, j, block] += mass / clip.mask.mean() / len(models)
    np.testing.assert_allclose(result.ratios, expected, rtol=1e-5)
    assert not np.allclose(result.ratios[:, 0], result.ratios[:, 1], rtol=1e-3)


def test_differences_are_taken_within_pairs():
    frozen = np.random.default_rng(0).normal(size=(50, 1, 1, 4))
    result = ObjectAttention(("trained",), np.concatenate([frozen + 0.5, frozen], axis=2), np.full((50, 2), 0.1))
    estimates = result.estimates()["trained"]
    for moving, still, difference in zip(
        *(estimates[name] for name in ("moving", "frozen", "difference")), strict=True
    ):
        assert difference == pytest.approx((0.5, 0.5, 0.5))
        assert moving.mean - still.mean == pytest.approx(0.5) and moving.low < moving.mean < moving.high
    assert result.to_dict()["covered"] == {"moving": 0.1, "frozen": 0.1}


def test_the_command_measures_the_user_s_videos_with_masks(tmp_path, monkeypatch, capsys):
    background = np.random.default_rng(0).integers(0, 200, (64, 64, 3), dtype=np.uint8)
    video, mask = np.repeat(background[None], 4, 0), np.zeros((4, 64, 64, 3), np.uint8)
    for frame in range(4):
        video[frame, 16:32, 16 * frame : 16 * frame + 16] = mask[frame, 16:32, 16 * frame : 16 * frame + 16] = 255
    write_video(tmp_path / "a.mp4", video, Encoding(quality=10))
    write_video(tmp_path / "a mask.mp4", mask, Encoding(quality=10))
    write_video(tmp_path / "empty.mp4", mask[:1].repeat(4, 0) * 0, Encoding())
    (tmp_path / "masks.csv").write_text("path,mask\na.mp4,a mask.mp4\na.mp4,\na.mp4,empty.mp4\n", encoding="utf-8")
    run = save_random_model(tmp_path / "run")
    arguments = ["--run", run, "--masks", tmp_path / "masks.csv", "--untrained", 1, "--output", tmp_path / "results"]
    status, output, errors = run_tool(monkeypatch, capsys, "object_attention.py", *arguments)
    assert not status, errors
    assert "skipped 1 of 3 videos" in output
    report = json.loads((tmp_path / "results" / "object_attention.json").read_text(encoding="utf-8"))
    assert report["clips"] == 2 and len(report["rows"]) == 2 * 3 * 1
    assert report["covered"]["moving"] == pytest.approx(1 / 16, abs=0.005)
    assert (tmp_path / "results" / "object_attention.md").read_text(encoding="utf-8") in output
    assert (tmp_path / "results" / "object_attention.png").is_file()

    (tmp_path / "masks.csv").write_text("path,mask\na.mp4,empty.mp4\n", encoding="utf-8")
    status, _, errors = run_tool(monkeypatch, capsys, "object_attention.py", *arguments)
    assert status == 2 and "masks.csv: found 1 videos, expected one with an object in 2 to 50 % of it" in errors


def test_masks_are_of_the_frames_that_the_model_sees(tmp_path):
    """Video and masks differ in their frame rates: an image folder has 25, and the clip is a selection of frames."""
    frames = np.zeros((60, 64, 64, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[16:48, index // 4 * 4 : index // 4 * 4 + 16] = 255
    write_video(tmp_path / "a.mp4", frames, Encoding(fps=30, quality=10))
    (tmp_path / "mask").mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "mask" / f"{index:03}.png")
    preprocess = Preprocess(Sampling(8, 1, target_fps=12.0), short_side=64, crop=64)
    (tmp_path / "masks.csv").write_text("path,mask\na.mp4,mask\n", encoding="utf-8")
    [pair] = recorded_pairs(preprocess, tmp_path / "masks.csv")
    seen = pair.moving.video.numpy().mean(axis=0) / 255
    assert np.abs(seen - pair.moving.mask).mean() < 0.02
    (tmp_path / "mask" / "059.png").unlink()
    with pytest.raises(DataError, match=r"mask: found 59 frames in .*mask, expected 60"):
        next(recorded_pairs(preprocess, tmp_path / "masks.csv"))
