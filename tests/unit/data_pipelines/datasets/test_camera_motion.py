"""The embedded data set: layout, determinism, true motion, and nothing in a single frame that tells the class."""

import json
import os

import numpy as np
import pytest
import torch

from data_pipelines.datasets.camera_motion import (
    OCTAVE,
    PHOTOS,
    TEMPLATES,
    Recipe,
    World,
    build_world,
    camera_path,
    film,
    load_photo,
    prepare,
    render,
    video_rng,
    write_video,
)
from data_pipelines.datasets.something_something import read_something_something
from data_pipelines.io.errors import DataError
from data_pipelines.video.reader import open_video, read_frames

SMALL = Recipe(train_videos=20, validation_videos=10, frames=8)


def test_prepare_writes_something_something_and_reuses_it(tmp_path):
    root = tmp_path / "set"
    prepare(root, SMALL)
    train, val = (read_something_something(root, split) for split in ("train", "validation"))
    assert train.class_names == tuple(t.replace("[", "").replace("]", "") for t in TEMPLATES)
    assert np.bincount(train.labels).tolist() == [2] * 10 and np.bincount(val.labels).tolist() == [1] * 10
    assert not set(train.paths) & set(val.paths)
    seen = {
        split: {entry["placeholders"][0] for entry in json.loads((root / f"labels/{split}.json").read_text())}
        for split in ("train", "validation")
    }
    assert not {name for pair in seen["train"] for name in pair.split(" and ")} & {
        name for pair in seen["validation"] for name in pair.split(" and ")
    }
    with open_video(train.paths[0]) as video:
        assert video.num_frames == 8 and video.fps == 12

    times = {path: path_time(path) for path in train.paths}
    (root / "videos" / "3.mp4").unlink()
    lost = read_frames(train.paths[3], range(8))
    prepare(root, SMALL)
    again = {path: path_time(path) for path in train.paths}
    assert [p for p in train.paths if times[p] != again[p]] == [str(root / "videos" / "3.mp4")]
    assert np.array_equal(read_frames(train.paths[3], range(8)), lost)

    with pytest.raises(DataError, match="made from"):
        prepare(root, Recipe(train_videos=20, validation_videos=10, frames=8, seed=1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.txt").touch()
    with pytest.raises(DataError, match="not empty"):
        prepare(tmp_path / "mine", SMALL)


def path_time(path):
    return os.stat(path).st_mtime_ns


def test_a_video_depends_on_its_own_number_only(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    film(SMALL, tmp_path / "a", "train", 7)
    film(Recipe(train_videos=9, validation_videos=10, frames=8), tmp_path / "b", "train", 7)
    assert (tmp_path / "a" / "8.mp4").read_bytes() == (tmp_path / "b" / "8.mp4").read_bytes()


def test_every_frame_is_a_key_frame(tmp_path):
    import av

    film(SMALL, tmp_path, "train", 0)
    with av.open(str(tmp_path / "1.mp4")) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)


@pytest.mark.parametrize("label", range(10))
def test_motion_is_what_the_class_says(label):
    """Phase correlation between far frames of a rendered clip: the scene moves against the camera."""
    rng = np.random.default_rng(label)
    noise = torch.from_numpy(rng.random((2, 3, 48, 48))).float()
    world = World(torch.nn.functional.interpolate(noise, size=192), torch.zeros(2, 2))
    frames = render(world, camera_path(label, 8, rng), 64, 64).mean(-1)
    dy, dx = shift(frames[2], frames[5])
    name = TEMPLATES[label]
    expected = {"Panning left": (0, 1), "Panning right": (0, -1), "Tilting up": (1, 0), "Tilting down": (-1, 0)}
    for prefix, (down, right) in expected.items():
        if name.startswith(prefix):
            assert (np.sign(dy) * (abs(dy) > 1), np.sign(dx) * (abs(dx) > 1)) == (down, right)
    if name.startswith("Standing still"):
        assert (dy, dx) == (0, 0)
    if name.startswith("Shaking"):  # there and back
        path = np.array([shift(frames[0], frame) for frame in frames])
        steps = np.diff(path, axis=0)
        assert any(np.ptp(path[:, i]) >= 2 and steps[:, i].min() < 0 < steps[:, i].max() for i in (0, 1))
    if name.startswith(("Zooming", "Rotating")):  # opposite borders move in opposite directions
        top, bottom = shift(frames[3, :24], frames[4, :24]), shift(frames[3, 40:], frames[4, 40:])
        axis = 0 if name.startswith("Zooming") else 1
        sign = {"Zooming in": -1, "Zooming out": 1, "Rotating clock": -1, "Rotating count": 1}
        wanted = next(value for prefix, value in sign.items() if name.startswith(prefix))
        # rotating clockwise, the camera's top goes right: the scene's top goes left
        assert np.sign(top[axis] - bottom[axis]) == wanted


def shift(before, after):
    """(down, right) whole pixels by which ``after`` is ``before`` moved, by phase correlation."""
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    a, b = (np.fft.fft2((x - x.mean()) * window) for x in (before, after))
    cross = b * a.conj()
    surface = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    peak = np.array(np.unravel_index(surface.argmax(), surface.shape))
    return tuple(np.where(peak > np.array(surface.shape) // 2, peak - np.array(surface.shape), peak))


@pytest.mark.parametrize("label", range(10))
def test_pose_is_uniform_in_every_frame(label):
    """Scale (on its circle of two octaves) and angle, at both ends and the middle, of 500 videos of each class."""
    from scipy.stats import kstest

    paths = np.stack([camera_path(label, 24, np.random.default_rng((label, i))) for i in range(500)])
    for frame in (0, 12, 23):
        for column, period in ((2, 2 * OCTAVE), (3, 2 * np.pi)):
            assert kstest(paths[:, frame, column] % period / period, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("photo", [photo for split in PHOTOS.values() for photo in split], ids=lambda photo: photo[1])
def test_a_world_is_a_picture_of_even_contrast(photo):
    """Numbers in [0, 1] everywhere, and in any window, by another filter, the same mean and no more contrast."""
    from scipy.ndimage import uniform_filter

    pixels = load_photo(*photo)
    for seed in range(6):
        layers = build_world(pixels, pixels, np.random.default_rng(seed)).layers.double().numpy()
        assert np.isfinite(layers).all() and layers.min() >= 0 and layers.max() <= 1
        filters = {"size": (1, 1, 33, 33), "mode": "mirror"}
        mean = uniform_filter(layers, **filters)
        deviation = np.sqrt(np.maximum(uniform_filter(layers**2, **filters) - mean**2, 0))
        assert np.abs(np.median(mean) - 0.5) < 0.03 and 0.1 < np.quantile(deviation, 0.99) < 0.22


def test_the_zoom_has_no_end(tmp_path):
    """Two octaves on, the camera sees the same picture; on the way there, no frame differs much from the one before."""
    rng = np.random.default_rng(0)
    world = build_world(*(load_photo(*photo) for photo in PHOTOS["train"][:2]), rng)
    path = np.zeros((65, 4))
    path[:, 2] = np.linspace(0.1, 0.1 + 2 * OCTAVE, 65)
    frames = render(world, path, 48, 64).astype(np.float32)
    assert np.abs(frames[0] - frames[-1]).max() <= 1
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert steps.max() < 4 * np.median(steps)
    contrast = frames.std((1, 2, 3))
    assert contrast.max() < 2 * contrast.min()


@pytest.mark.slow
def test_no_single_frame_tells_the_class(tmp_path):
    """A classifier on first, middle or last frames stays at chance; given the next frame too, it does not."""
    from sklearn.ensemble import ExtraTreesClassifier

    train, test, chance = 900, 400, 0.1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many tiny operations
    recipe = Recipe()
    moments = {"first": 0, "middle": recipe.frames // 2, "last": recipe.frames - 1}
    shown = [*moments.values(), moments["middle"] + 2]
    rows = {name: [] for name in (*moments, "pair")}
    labels = np.arange(train + test) % 10
    for index, label in enumerate(labels):
        rng = video_rng(recipe, "train", index)
        one, other = (load_photo(*PHOTOS["train"][i]) for i in rng.integers(len(PHOTOS["train"]), size=2))
        path = camera_path(label, recipe.frames, rng)[shown]
        write_video(tmp_path / "clip.mp4", render(build_world(one, other, rng), path, recipe.height, recipe.width))
        *single, later = read_frames(tmp_path / "clip.mp4", range(4)).astype(np.float32).mean(-1)
        for name, picture in zip(moments, single, strict=True):
            rows[name].append(features(picture))
        rows["pair"].append(np.concatenate([rows["middle"][-1], features(later - single[1])]))
    torch.set_num_threads(threads)

    def accuracy(name):
        known = np.array(rows[name])
        forest = ExtraTreesClassifier(300, random_state=0, n_jobs=2).fit(known[:train], labels[:train])
        return (forest.predict(known[train:]) == labels[train:]).mean()

    margin = 2.58 * np.sqrt(chance * (1 - chance) / test)  # 99 % interval
    single = {name: accuracy(name) for name in moments}
    assert all(abs(found - chance) < margin for found in single.values()), single
    assert accuracy("pair") > chance + 3 * margin


def features(picture):
    """What could betray a class: sharpness per direction and scale, brightness, contrast, and the picture itself."""
    rows, values = picture, [picture.mean(), picture.std()]
    for _ in range(4):
        values += [np.abs(np.diff(rows, axis=axis)).mean() for axis in (0, 1)]
        values += [np.abs(np.diff(rows, 2, axis=axis)).mean() for axis in (0, 1)]
        rows = rows[: rows.shape[0] // 2 * 2, : rows.shape[1] // 2 * 2]
        rows = rows.reshape(rows.shape[0] // 2, 2, rows.shape[1] // 2, 2).mean((1, 3))
    return np.array([*values, *rows.ravel()])
