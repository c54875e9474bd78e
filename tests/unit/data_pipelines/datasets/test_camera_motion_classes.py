"""What single frames and unordered frames of camera_motion reveal about the class."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from data_pipelines.datasets.camera_motion import Recipe
from data_pipelines.datasets.camera_motion.camera_paths import SCALE_RANGE, CameraPath, camera_path
from data_pipelines.datasets.camera_motion.encoding import write_video
from data_pipelines.datasets.camera_motion.frames import render_frames
from data_pipelines.datasets.camera_motion.preparation import draw_clip
from data_pipelines.datasets.camera_motion.recipe import ANGLE, LOG_SCALE, MOTIONS, MOVES
from data_pipelines.video.reader import read_frames

TIME = np.arange(24.0)


def draw_paths(camera_class, seeds):
    paths = [camera_path(camera_class, TIME, np.random.default_rng(seed)) for seed in seeds]
    return np.stack([path.poses for path in paths]), np.stack([path.shots for path in paths])


def assert_uniform(poses, shots):
    """Kolmogorov-Smirnov test of scale and angle in three frames, and a binomial test of the shot."""
    for frame in (0, 12, 23):
        scale = poses[:, frame, LOG_SCALE] / SCALE_RANGE + 0.5
        angle = poses[:, frame, ANGLE] % (2 * np.pi) / (2 * np.pi)
        assert all(kstest(values, "uniform").pvalue > 1e-4 for values in (scale, angle))
        assert 1e-4 < binom.cdf(shots[:, frame].sum(), len(shots), 0.5) < 1 - 1e-4


@pytest.mark.parametrize("label", range(10), ids=lambda label: MOTIONS[label].name)
def test_scale_and_angle_are_uniform_in_every_frame(label):
    assert_uniform(*draw_paths((MOTIONS[label],), range(500)))


@pytest.mark.parametrize("moves", [2, 3])
def test_scale_and_angle_are_uniform_in_every_frame_of_a_sequence(moves):
    classes = Recipe(moves=moves).classes
    for axis in range(4):
        sequences = [each for each in classes if each[0].axis == each[-1].axis == axis]
        paths = [draw_paths(sequence, [(axis, i)]) for i, sequence in enumerate(sequences * (500 // len(sequences)))]
        assert_uniform(*(np.concatenate(arrays) for arrays in zip(*paths, strict=True)))


def test_all_classes_have_the_same_cuts():
    """The same random numbers give a pan, a still camera and a zoom the same number of shots."""
    for seed in range(100):
        counts = set()
        for motion in MOTIONS:
            _, shots = draw_paths((motion,), [seed])
            backwards = motion.axis == LOG_SCALE and motion.direction != cut_direction(seed)
            if not backwards:
                counts.add(tuple(shots[0]))
        assert len(counts) == 1
    assert 0.1 < np.mean([len(set(draw_paths((MOTIONS[0],), [i])[1][0])) > 1 for i in range(200)]) < 0.7


def cut_direction(seed):
    """The direction of the zoom whose cuts equal those of a still camera with the same random numbers."""
    still = draw_paths((MOTIONS[8],), [seed])[1]
    return next((d for d, i in ((-1, 4), (1, 5)) if np.array_equal(draw_paths((MOTIONS[i],), [seed])[1], still)), 0)


@pytest.mark.parametrize("moves", [1, 2])
def test_only_the_camera_depends_on_the_class(moves):
    recipe = Recipe(variation=100, moves=moves, min_fps=8, max_fps=60, frames=12)
    for seed in range(3):
        clips = [draw_clip(recipe, "train", label, recipe.rng("train", seed)) for label in (0, 5, 9)]
        states = [describe(clip) for clip in clips]
        assert states[0] == states[1] == states[2]
        assert not np.array_equal(clips[0].camera.poses, clips[1].camera.poses)


def describe(clip):
    """Everything but the camera, in a form that can be compared."""
    arrays = [clip.scene.tilt, clip.scene.blur, clip.sensor.gains]
    for plane in clip.scene.planes:
        arrays += [*(texture.numpy() for texture in plane.textures), plane.centres, plane.parallax, plane.motion]
    sensor = replace(clip.sensor, gains=np.zeros(0))
    facts = [clip.scene.distortion, clip.encoding, clip.height, clip.width, sensor.noise, sensor.defocus, sensor.bars]
    return [array.tobytes() for array in arrays], facts


def test_sequences_of_the_same_axes_have_the_same_unordered_frames():
    """Rendered with the same random numbers, the frames of (A, B), (B, A) and their opposites are equal as sets.

    No function of unordered frames distinguishes these classes. As many groups remain as there are pairs of axes.
    """
    recipe = Recipe(moves=2, frames=16, short_side=16)
    groups, orders = {}, set()
    for label, moves in enumerate(recipe.classes):
        clip = draw_clip(recipe, "train", label, recipe.rng("train", 0))
        assert np.ptp(clip.sensor.gains) == 0
        frames = render_frames(clip.scene, clip.camera, clip.height, clip.width).numpy()
        axes = tuple(sorted(motion.axis for motion in moves))
        groups.setdefault(axes, set()).add(tuple(sorted(frame.tobytes() for frame in frames)))
        orders.add(frames.tobytes())
    assert all(len(group) == 1 for group in groups.values())
    assert len(groups) == 10 and len(orders) == 64  # unordered frames: at most 10 / 64 are right


def test_three_moves_have_the_same_unordered_poses():
    groups, orders = {}, set()
    for moves in Recipe(moves=3).classes:
        path = camera_path(moves, np.arange(16.0), np.random.default_rng(0))
        frames = [(*pose, shot) for pose, shot in zip(path.poses.tolist(), path.shots.tolist(), strict=True)]
        groups.setdefault(tuple(sorted(motion.axis for motion in moves)), set()).add(tuple(sorted(frames)))
        orders.add(tuple(frames))
    assert all(len(group) == 1 for group in groups.values())
    assert len(groups) == 20 and len(orders) == 512


def test_sequences_move_in_the_order_of_their_names():
    recipe = Recipe(moves=2, frames=16)
    for label, (first, second) in enumerate(recipe.classes):
        poses = camera_path((first, second), np.arange(16.0), np.random.default_rng(label)).poses
        for motion, part in ((first, poses[:8]), (second, poses[8:])):
            steps = np.diff(part, axis=0)
            steps[:, LOG_SCALE] = (steps[:, LOG_SCALE] + SCALE_RANGE / 2) % SCALE_RANGE - SCALE_RANGE / 2  # cuts
            assert (steps[:, motion.axis] * motion.direction > 0).all()
            assert not np.delete(steps, motion.axis, axis=1).any()
    assert recipe.classes[1] == (MOVES[0], MOVES[1])


def render_some(recipe, index, label, keep, file):
    """The frames at positions ``keep`` of a video, after encoding and decoding, as a square of grey values."""
    rng = recipe.rng("train", index)
    clip = draw_clip(recipe, "train", label, rng)
    planes = tuple(replace(plane, motion=plane.motion[keep]) for plane in clip.scene.planes)
    clip = replace(
        clip,
        scene=replace(clip.scene, planes=planes),
        camera=CameraPath(clip.camera.poses[keep], clip.camera.shots[keep]),
        sensor=replace(clip.sensor, gains=clip.sensor.gains[keep]),
    )
    write_video(file, clip.frames(rng), clip.encoding)
    frames = read_frames(str(file), range(len(keep))).astype(np.float32).mean(-1)
    top, left = ((n - recipe.short_side) // 2 for n in frames.shape[1:])
    return frames[:, top : top + recipe.short_side, left : left + recipe.short_side]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [Recipe(variation=100), Recipe(moves=2, frames=16)], ids=["full variation", "moves"])
def test_no_single_frame_reveals_the_class(recipe, tmp_path):
    """A linear and a nonlinear probe of first, middle or last frames stay at chance; with a second frame they do not.

    Of the moves of a sequence, the first is to be recognised. Of the frames of a sequence, no pair crosses a cut.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    num_train, num_test, num_classes = 1000, 600, 10 if recipe.moves == 1 else 8
    positions = {"first": 0, "middle": 4, "last": recipe.frames - 1}
    rows = {name: [] for name in (*positions, "pair")}
    labels = np.arange(num_train + num_test) % len(recipe.classes)
    targets = labels if recipe.moves == 1 else labels // 8
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many tiny operations
    for index, label in enumerate(labels):
        keep = np.array([*positions.values(), 6])
        *single, later = render_some(recipe, index, label, keep, tmp_path / "clip.mp4")
        for name, frame in zip(positions, single, strict=True):
            rows[name].append(features(frame))
        rows["pair"].append(np.concatenate([rows["middle"][-1], features(later - single[1])]))
    torch.set_num_threads(threads)

    def right(name, model):
        inputs = np.array(rows[name])
        return (
            model.fit(inputs[:num_train], targets[:num_train]).predict(inputs[num_train:]) == targets[num_train:]
        ).sum()

    forest = ExtraTreesClassifier(300, random_state=0, n_jobs=2)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    bound = binom.ppf(1 - 1e-4, num_test, 1 / num_classes)
    counts = {(name, str(model)): right(name, model) for name in positions for model in (forest, linear)}
    assert max(counts.values()) <= bound, counts
    assert right("pair", forest) > bound


def features(image):
    """What could reveal a class: sharpness per direction and scale, brightness, contrast, and a thumbnail."""
    rows, values = image, [image.mean(), image.std()]
    for _ in range(4):
        values += [np.abs(np.diff(rows, axis=axis)).mean() for axis in (0, 1)]
        values += [np.abs(np.diff(rows, 2, axis=axis)).mean() for axis in (0, 1)]
        rows = rows[: rows.shape[0] // 2 * 2, : rows.shape[1] // 2 * 2]
        rows = rows.reshape(rows.shape[0] // 2, 2, rows.shape[1] // 2, 2).mean((1, 3))
    return np.array([*values, *rows.ravel()])
