"""The rendered dataset: layout, determinism, correct motion, and no single frame that reveals the class."""

import json
import shutil

import av
import numpy as np
import pytest
import torch

from data_pipelines.datasets.camera_motion import Recipe, preparation, prepare, unrendered
from data_pipelines.datasets.camera_motion.camera_paths import OCTAVE, camera_path
from data_pipelines.datasets.camera_motion.frames import render_frames, write_video
from data_pipelines.datasets.camera_motion.photographs import load_photograph
from data_pipelines.datasets.camera_motion.recipe import MOTIONS, PHOTOGRAPHS, SPLITS, draw_photographs
from data_pipelines.datasets.camera_motion.worlds import WORLD_SIZE, World, build_world
from data_pipelines.datasets.something_something import read_something_something
from data_pipelines.io.errors import DataError
from data_pipelines.video.reader import open_video, read_frames

SMALL = Recipe(train_videos=40, validation_videos=13, frames=8)  # as the fixture small_set


def test_layout(small_set):
    train, validation = (read_something_something(small_set, split) for split in SPLITS)
    names = tuple(motion.template.replace("[", "").replace("]", "") for motion in MOTIONS)
    assert train.class_names == validation.class_names == names
    assert np.bincount(train.labels).tolist() == [4] * 10
    assert np.bincount(validation.labels).tolist() == [2] * 3 + [1] * 7
    assert train.missing() == validation.missing() == []
    assert not set(train.paths) & set(validation.paths)
    with open_video(train.paths[0]) as video:
        assert video.num_frames == 8 and video.fps == 12
    with av.open(train.paths[0]) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)


def test_the_splits_share_no_photograph(small_set):
    subjects = {}
    for split in SPLITS:
        entries = json.loads((small_set / "labels" / f"{split}.json").read_text())
        subjects[split] = {subject for entry in entries for subject in entry["placeholders"][0].split(" and ")}
    assert subjects["train"] and subjects["validation"]
    assert not subjects["train"] & subjects["validation"]


def test_prepare_renders_only_missing_videos(small_set, tmp_path, monkeypatch):
    rendered = []

    def render_in_this_process(root, recipe, jobs):
        rendered.extend(jobs)
        for split, index in jobs:
            preparation.render_video(recipe, root / "videos", split, index)

    monkeypatch.setattr(preparation, "_render_all", render_in_this_process)
    root = shutil.copytree(small_set, tmp_path / "set")
    lost = root / "videos" / "3.mp4"
    content = lost.read_bytes()
    lost.unlink()
    assert unrendered(root, SMALL) == [("train", 2)] and not lost.exists()
    prepare(root, SMALL)
    assert rendered == [("train", 2)] and lost.read_bytes() == content
    prepare(root, SMALL)
    assert len(rendered) == 1


def test_prepare_leaves_other_files_alone(small_set, tmp_path):
    with pytest.raises(DataError, match=r"recipe\.json: .*'seed': 0.*'seed': 1"):
        prepare(small_set, Recipe(train_videos=40, validation_videos=13, frames=8, seed=1))
    (tmp_path / "photo.txt").touch()
    with pytest.raises(DataError, match=str(tmp_path)):
        prepare(tmp_path, SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.txt"]


@pytest.mark.parametrize(("parameter", "value"), [("frames", 0), ("seed", -1), ("height", 33)])
def test_recipe_rejects_values_out_of_range(parameter, value):
    with pytest.raises(DataError, match=rf"Recipe\.{parameter}: found {value}"):
        Recipe(**{parameter: value})


def test_a_video_depends_on_its_own_index_only(small_set, tmp_path):
    preparation.render_video(Recipe(train_videos=9, validation_videos=10, frames=8), tmp_path, "train", 7)
    assert (tmp_path / "8.mp4").read_bytes() == (small_set / "videos" / "8.mp4").read_bytes()


def displacement(before, after):
    """(down, right) whole pixels by which ``before`` is moved in ``after``, by phase correlation."""
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    a, b = (np.fft.fft2((image - image.mean()) * window) for image in (before, after))
    cross = b * a.conj()
    surface = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    peak, size = np.array(np.unravel_index(surface.argmax(), surface.shape)), np.array(surface.shape)
    return tuple(np.where(peak > size // 2, peak - size, peak))


@pytest.fixture(params=range(10), ids=lambda label: MOTIONS[label].template)
def rendered_class(request):
    """The class's name and 8 grey frames of random noise."""
    label = request.param
    rng = np.random.default_rng(label)
    noise = torch.from_numpy(rng.random((2, 3, 48, 48))).float()
    world = World(torch.nn.functional.interpolate(noise, size=WORLD_SIZE), torch.zeros(2, 2))
    return MOTIONS[label].template, render_frames(world, camera_path(label, 8, rng), 64, 64).mean(-1)


def test_the_scene_moves_as_the_class_says(rendered_class):
    """Signs are opposite to the camera's: when the camera pans left, the scene moves right."""
    name, frames = rendered_class
    translations = {"Panning left": (0, 1), "Panning right": (0, -1), "Tilting up": (1, 0), "Tilting down": (-1, 0)}
    translations["Standing still"] = (0, 0)
    # Of zooms and rotations: the sign of the upper border's motion relative to the lower border's, and its axis.
    borders = {"Zooming in": (-1, 0), "Zooming out": (1, 0), "Rotating clock": (-1, 1), "Rotating count": (1, 1)}
    if name.startswith("Shaking"):
        path = np.array([displacement(frames[0], frame) for frame in frames])
        steps = np.diff(path, axis=0)
        assert any(np.ptp(path[:, i]) >= 2 and steps[:, i].min() < 0 < steps[:, i].max() for i in (0, 1))
    elif expected := next((value for prefix, value in translations.items() if name.startswith(prefix)), None):
        moved = np.array(displacement(frames[2], frames[5]))
        assert np.where(np.abs(moved) > 1, np.sign(moved), 0).tolist() == list(expected)
        if expected == (0, 0):
            assert moved.tolist() == [0, 0]
    else:
        sign, axis = next(value for prefix, value in borders.items() if name.startswith(prefix))
        top, bottom = displacement(frames[3, :24], frames[4, :24]), displacement(frames[3, 40:], frames[4, 40:])
        assert np.sign(top[axis] - bottom[axis]) == sign


@pytest.mark.parametrize("label", range(10))
def test_scale_and_angle_are_uniform_in_every_frame(label):
    """Kolmogorov-Smirnov test over 500 videos per class: scale modulo two octaves, angle modulo a full turn."""
    from scipy.stats import kstest

    paths = np.stack([camera_path(label, 24, np.random.default_rng((label, i))) for i in range(500)])
    for frame in (0, 12, 23):
        for column, period in ((2, 2 * OCTAVE), (3, 2 * np.pi)):
            assert kstest(paths[:, frame, column] % period / period, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("photograph", sum(PHOTOGRAPHS.values(), ()), ids=lambda photograph: photograph.subject)
def test_worlds_have_even_contrast(photograph):
    """All values lie in [0, 1]; mean and contrast are even in every window, measured with scipy's filter."""
    from scipy.ndimage import uniform_filter

    pixels = load_photograph(photograph)
    for seed in range(6):
        layers = build_world(pixels, pixels, np.random.default_rng(seed)).layers.double().numpy()
        assert np.isfinite(layers).all() and layers.min() >= 0 and layers.max() <= 1
        filters = {"size": (1, 1, 33, 33), "mode": "mirror"}
        mean = uniform_filter(layers, **filters)
        deviation = np.sqrt(np.maximum(uniform_filter(layers**2, **filters) - mean**2, 0))
        assert np.abs(np.median(mean) - 0.5) < 0.03 and 0.1 < np.quantile(deviation, 0.99) < 0.22


def test_the_zoom_repeats_after_two_octaves():
    """The frame is the same then, and no frame on the way differs much from the previous one."""
    first, second = (load_photograph(photograph) for photograph in PHOTOGRAPHS["train"][:2])
    world = build_world(first, second, np.random.default_rng(0))
    path = np.zeros((65, 4))
    path[:, 2] = np.linspace(0.1, 0.1 + 2 * OCTAVE, 65)
    frames = render_frames(world, path, 48, 64).astype(np.float32)
    assert np.abs(frames[0] - frames[-1]).max() <= 1
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert steps.max() < 4 * np.median(steps)
    contrast = frames.std((1, 2, 3))
    assert contrast.max() < 2 * contrast.min()


@pytest.mark.slow
def test_no_single_frame_reveals_the_class(tmp_path):
    """A classifier of first, middle or last frames stays at chance; with a second frame it does not."""
    from sklearn.ensemble import ExtraTreesClassifier

    num_train, num_test, chance = 900, 400, 0.1
    recipe = Recipe()
    positions = {"first": 0, "middle": recipe.frames // 2, "last": recipe.frames - 1}
    rows = {name: [] for name in (*positions, "pair")}
    labels = np.arange(num_train + num_test) % 10
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many tiny operations
    for index, label in enumerate(labels):
        rng = recipe.rng("train", index)
        first, second = (load_photograph(photograph) for photograph in draw_photographs("train", rng))
        path = camera_path(label, recipe.frames, rng)[[*positions.values(), positions["middle"] + 2]]
        world = build_world(first, second, rng)
        write_video(tmp_path / "clip.mp4", render_frames(world, path, recipe.height, recipe.width))
        *single, later = read_frames(tmp_path / "clip.mp4", range(4)).astype(np.float32).mean(-1)
        for name, frame in zip(positions, single, strict=True):
            rows[name].append(features(frame))
        rows["pair"].append(np.concatenate([rows["middle"][-1], features(later - single[1])]))
    torch.set_num_threads(threads)

    def accuracy(name):
        inputs = np.array(rows[name])
        forest = ExtraTreesClassifier(300, random_state=0, n_jobs=2).fit(inputs[:num_train], labels[:num_train])
        return (forest.predict(inputs[num_train:]) == labels[num_train:]).mean()

    margin = 2.58 * np.sqrt(chance * (1 - chance) / num_test)  # 99 % interval
    accuracies = {name: accuracy(name) for name in positions}
    assert all(abs(value - chance) < margin for value in accuracies.values()), accuracies
    assert accuracy("pair") > chance + 3 * margin


def features(image):
    """What could reveal a class: sharpness per direction and scale, brightness, contrast, and a thumbnail."""
    rows, values = image, [image.mean(), image.std()]
    for _ in range(4):
        values += [np.abs(np.diff(rows, axis=axis)).mean() for axis in (0, 1)]
        values += [np.abs(np.diff(rows, 2, axis=axis)).mean() for axis in (0, 1)]
        rows = rows[: rows.shape[0] // 2 * 2, : rows.shape[1] // 2 * 2]
        rows = rows.reshape(rows.shape[0] // 2, 2, rows.shape[1] // 2, 2).mean((1, 3))
    return np.array([*values, *rows.ravel()])
