"""The second renderer: its videos, decoded from their files, move as their classes say."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import decode_all

from data_pipelines.datasets.camera_motion.photographs import PHOTOGRAPHS, load_photograph
from data_pipelines.datasets.camera_motion.recipe import MOTIONS
from data_pipelines.datasets.class_folders import read_split_folders
from lookupvivit.camera_motion import second_renderer
from lookupvivit.camera_motion.second_renderer import CLASSES, SHAKING, STILL, encode, encoding_of, render, write_videos

SEED = 0
PAIRS = 6  # of frames, in which motion is measured
SLOWEST = (0.15, 0.15, 0.12, 0.2)  # pan, tilt, zoom, rotation per second, as `camera_motion` returns them
AT_THE_EDGE = np.array([1, 1, 0.5, 0.5])  # what these move there, as a fraction of the frame
EXPECTED = {
    "Panning left": (0, -1),
    "Panning right": (0, 1),
    "Tilting up": (1, -1),
    "Tilting down": (1, 1),
    "Zooming in": (2, -1),
    "Zooming out": (2, 1),
    "Rotating clockwise": (3, 1),
    "Rotating counter-clockwise": (3, -1),
}


def camera_motion(frames: np.ndarray, fps: float) -> np.ndarray:
    """The camera's pan, tilt (frames per second), zoom out and clockwise rotation (1 / s): (PAIRS, 4).

    A similarity is fitted to dense optical flow of reduced frames, by least absolute deviations.
    """
    from skimage.registration import optical_flow_ilk

    height, width = (round(length * 64 / min(frames.shape[1:3])) for length in frames.shape[1:3])
    step = max(1, round(fps / 12))
    rows, columns = np.mgrid[:height, :width]
    x, y = (columns - (width - 1) / 2).ravel(), (rows - (height - 1) / 2).ravel()
    one, zero = np.ones_like(x), np.zeros_like(x)
    basis = np.concatenate([np.stack([one, zero, x, -y], axis=1), np.stack([zero, one, y, x], axis=1)])
    rates = []
    for first in np.linspace(0, len(frames) - 1 - step, PAIRS).round().astype(int):
        before, after = (
            np.float32(Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BOX)) / 255
            for frame in (frames[first], frames[first + step])
        )
        vertical, horizontal = optical_flow_ilk(before, after, radius=7)
        flow, weights = np.concatenate([horizontal.ravel(), vertical.ravel()]), np.ones(2 * len(x))
        for _ in range(5):
            motion = np.linalg.lstsq(basis * weights[:, None], flow * weights, rcond=None)[0]
            weights = 1 / np.sqrt(np.abs(basis @ motion - flow) + 0.1)
        rates.append(-motion / [width, height, 1, 1] * fps / step)  # the scene moves against the camera
    return np.array(rates)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[Path], set]:
    """A folder of ten videos, its files, and the photographs that were loaded for it."""
    loaded = set()

    def load(photograph):
        loaded.add(photograph)
        return load_photograph(photograph)

    folder = tmp_path_factory.mktemp("second") / "videos"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second_renderer, "load_photograph", load)
        files = write_videos(folder, 10, SEED)
    return folder, files, loaded


@pytest.mark.slow
def test_the_decoded_videos_move_as_their_classes_say(written):
    folder, files, _ = written
    manifest = read_split_folders(folder, "val")
    assert sorted(manifest.paths) == sorted(map(str, files))
    assert sorted(CLASSES[index] for index in range(10)) == [manifest.class_names[i] for i in manifest.labels]
    for index, file in enumerate(files):
        with av.open(str(file)) as container:
            fps = float(container.streams.video[0].average_rate)
        rates = camera_motion(decode_all(file), fps)
        mean = rates.mean(axis=0)
        assert file.parent.name == CLASSES[index]
        if file.parent.name == STILL:
            assert (np.abs(rates).mean(axis=0) < 0.05).all(), (file, rates)
        elif file.parent.name == SHAKING:
            assert (np.abs(rates[:, :2]).mean(axis=0) > 0.1).all(), (file, rates)
            assert (rates[:, :2].min(axis=0) < 0).all() and (rates[:, :2].max(axis=0) > 0).all(), (file, rates)
        else:
            axis, sign = EXPECTED[next(name for name in EXPECTED if file.parent.name.startswith(name + " "))]
            assert sign * mean[axis] > SLOWEST[axis], (file, mean)
            others = np.delete(np.abs(mean) * AT_THE_EDGE, axis)
            assert (2 * others < np.abs(mean * AT_THE_EDGE)[axis]).all(), (file, mean)


@pytest.mark.slow
def test_videos_are_of_validation_photographs_and_always_the_same(written, tmp_path):
    folder, files, loaded = written
    assert loaded == set(PHOTOGRAPHS["validation"])
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing temporary
    index = min(range(10), key=lambda index: files[index].stat().st_size)
    again = tmp_path / files[index].name
    encode(again, render(index, SEED), encoding_of(index, SEED))
    assert again.read_bytes() == files[index].read_bytes()


def test_classes_are_those_of_the_first_renderer():
    assert tuple(f"{motion.name} {motion.preposition} something" for motion in MOTIONS) == CLASSES


def test_no_frame_shows_what_is_outside_of_the_photograph(monkeypatch):
    texture = np.random.default_rng(0).uniform(0.5, 1, (20, 25)).astype(np.float32)
    bright = Image.fromarray(texture).resize((500, 400), Image.Resampling.BILINEAR)
    photograph = torch.from_numpy(np.array(bright)).expand(3, 400, 500)
    monkeypatch.setattr(second_renderer, "load_photograph", lambda _: photograph)
    for class_name in CLASSES:
        shot, _ = second_renderer._draw_shot(class_name, PHOTOGRAPHS["validation"][0], np.random.default_rng(SEED))
        for number in np.linspace(0, len(shot.coefficients) - 1, 5).round().astype(int):
            assert shot.frame(number).min() > 50, class_name  # outside, PIL's transform is black


def test_sets_are_balanced_and_not_mixed(tmp_path):
    with pytest.raises(ValueError, match="count: found 15, expected a positive multiple of 10"):
        write_videos(tmp_path / "videos", 15, SEED)
    with pytest.raises(FileExistsError, match="exists, expected a new folder"):
        write_videos(tmp_path, 10, SEED)
