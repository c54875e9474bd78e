"""camera_motion: ten classes that only time can tell apart, rendered on the spot from photographs.

A camera pans, tilts, zooms, rotates, stands still or shakes over a still world made of photographs that ship inside
the scikit-image and scikit-learn wheels, so the set needs no download. Training and validation share no photograph.
No single frame tells the class, by construction: every class starts at a uniformly random place and angle of a world
that goes on for ever as its own mirror image, and at a uniformly random point of a zoom that goes on for ever through
two layers, so that wherever a move has led after any number of frames is again uniformly random. Every frame of every
class is resampled at sub-pixel positions (a still camera is not sharper) and coded by itself at one quality.

The result is written in Something-Something's own layout, see `something_something.py`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.datasets.something_something import write_something_something
from data_pipelines.io.atomic import atomic_write, write_json
from data_pipelines.io.errors import DataError
from data_pipelines.io.progress import progress

TEMPLATES = (
    "Panning left over [something]",
    "Panning right over [something]",
    "Tilting up over [something]",
    "Tilting down over [something]",
    "Zooming in on [something]",
    "Zooming out of [something]",
    "Rotating clockwise over [something]",
    "Rotating counter-clockwise over [something]",
    "Standing still over [something]",
    "Shaking over [something]",
)
# (package, file) of the photographs.
TRAIN_PHOTOS = (
    ("skimage.data", "astronaut.png"),
    ("skimage.data", "brick.png"),
    ("skimage.data", "camera.png"),
    ("skimage.data", "cell.png"),
    ("skimage.data", "clock_motion.png"),
    ("skimage.data", "coins.png"),
    ("skimage.data", "grass.png"),
    ("skimage.data", "hubble_deep_field.jpg"),
    ("skimage.data", "ihc.png"),
    ("skimage.data", "moon.png"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "page.png"),
    ("skimage.data", "retina.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
)
VAL_PHOTOS = (
    ("skimage.data", "chelsea.png"),
    ("skimage.data", "coffee.png"),
    ("skimage.data", "gravel.png"),
    ("skimage.data", "rocket.jpg"),
    ("sklearn.datasets.images", "china.jpg"),
)
PHOTOS = {"train": TRAIN_PHOTOS, "validation": VAL_PHOTOS}
SPLITS = tuple(PHOTOS)

VERSION = 3  # of the renderer: pictures of another version are not the same
WORLD = 192  # pixels of the square world; it goes on as its own mirror image
SUPERSAMPLING = 2
OCTAVE = float(np.log(2))  # between the two layers of the world, in log scale
QUANTIZER = 16  # H.264 QP of every frame
FPS = 12


@dataclass(frozen=True)
class Recipe:
    """What the data set on disk was made from; the same recipe gives the same pictures."""

    train_videos: int = 3000
    validation_videos: int = 500
    seed: int = 0
    frames: int = 24
    height: int = 64
    width: int = 80

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            least = 0 if key == "seed" else 1
            if value < least:
                raise DataError(f"camera_motion.{key}: found {value}, must be at least {least}")
        for key in ("height", "width"):
            if getattr(self, key) % 2:
                raise DataError(f"camera_motion.{key}: found {getattr(self, key)}, must be even, as H.264 wants it")

    def count(self, split: str) -> int:
        return self.train_videos if split == "train" else self.validation_videos


def prepare(root: Path, recipe: Recipe = Recipe()) -> None:
    """Make the data set under ``root``, or what is missing of it; leave a complete one alone.

    Raises:
        DataError: ``root`` holds something else, or the same set from another recipe.
    """
    missing = unrendered(root, recipe)
    _claim(root, recipe)
    videos = root / "videos"
    videos.mkdir(exist_ok=True)
    if missing:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's thread pool in an unknown state
        cores = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(cores, spawn, torch.set_num_threads, (1,)) as pool:
            films = pool.map(film, *zip(*((recipe, videos, *job) for job in missing), strict=True), chunksize=16)
            for _ in progress(films, desc=f"rendering {root}", total=len(missing), unit="video"):
                pass
    entries = {split: [_annotation(recipe, split, i) for i in range(recipe.count(split))] for split in SPLITS}
    write_something_something(root, entries, TEMPLATES)


def unrendered(root: Path, recipe: Recipe) -> list[tuple[str, int]]:
    """(split, index) of every video that `prepare` would render; changes nothing.

    Raises:
        DataError: as `prepare`.
    """
    stamp = root / "recipe.json"
    if stamp.is_file():
        found, wanted = json.loads(stamp.read_text(encoding="utf-8")), _content(recipe)
        if found != wanted:
            raise DataError(f"{stamp}: made from {found}, wanted {wanted}; delete {root} or use another data.root")
    elif root.is_dir() and any(root.iterdir()):
        raise DataError(f"{root}: not empty and no camera_motion set (it has no recipe.json); use another root")
    videos = root / "videos"
    present = {file.name for file in videos.iterdir()} if videos.is_dir() else set()
    jobs = [(split, i) for split in SPLITS for i in range(recipe.count(split))]
    return [job for job in jobs if f"{_video_id(recipe, *job)}.mp4" not in present]


def film(recipe: Recipe, folder: Path, split: str, index: int) -> None:
    """Render video ``index`` of ``split`` and write it into ``folder``."""
    rng = video_rng(recipe, split, index)
    one, other = (load_photo(*PHOTOS[split][i]) for i in rng.integers(len(PHOTOS[split]), size=2))
    path = camera_path(index % len(TEMPLATES), recipe.frames, rng)
    frames = render(build_world(one, other, rng), path, recipe.height, recipe.width)
    write_video(folder / f"{_video_id(recipe, split, index)}.mp4", frames)


def video_rng(recipe: Recipe, split: str, index: int) -> np.random.Generator:
    """The randomness of one video, whatever is rendered before, after or beside it."""
    return np.random.default_rng((recipe.seed, SPLITS.index(split), index))


def write_video(path: Path, frames: np.ndarray) -> None:
    """Code uint8 frames (T, H, W, 3) as H.264, every frame by itself at one quality; the file is written atomically."""
    import av

    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.options = {"qp": str(QUANTIZER), "g": "1", "preset": "veryfast", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _content(recipe: Recipe) -> dict[str, int]:
    return {"camera_motion": VERSION, **asdict(recipe)}


def _claim(root: Path, recipe: Recipe) -> None:
    """Make ``root`` this recipe's own, where it is nobody's yet."""
    stamp = root / "recipe.json"
    if stamp.is_file():
        return
    write_json(stamp, _content(recipe))


def _video_id(recipe: Recipe, split: str, index: int) -> str:
    return str(index + 1 + (recipe.train_videos if split == "validation" else 0))


def _annotation(recipe: Recipe, split: str, index: int) -> tuple[str, str, str, list[str]]:
    """(id, label, template, placeholders) as Something-Something has them; what is seen fills the placeholder."""
    picks = video_rng(recipe, split, index).integers(len(PHOTOS[split]), size=2)
    seen = " and ".join(PHOTOS[split][i][1].partition(".")[0].replace("_", " ") for i in picks)
    template = TEMPLATES[index % len(TEMPLATES)]
    return _video_id(recipe, split, index), template.replace("[something]", seen), template, [seen]


# Rendering: world, camera path, frames


@cache
def load_photo(package: str, file: str) -> Tensor:
    """A photograph from an installed wheel, (3, H, W) float in [0, 1], at most twice the world's size."""
    try:
        from skimage.io import imread
    except ImportError:
        raise DataError(
            "camera_motion: its photographs are in scikit-image and scikit-learn, which are not installed; "
            "pip install 'lookupvivit[demo]'"
        ) from None

    picture = imread(str(resources.files(package) / file))
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    photo = torch.from_numpy(picture[..., :3].copy()).permute(2, 0, 1).float() / 255
    reduction = min(1.0, 2 * WORLD / min(photo.shape[1:]))
    size = [round(n * reduction) for n in photo.shape[1:]]
    return F.interpolate(photo[None], size=size, mode="bilinear", antialias=True)[0]


@dataclass(frozen=True)
class World:
    """A still scene without end: two layers an octave of scale apart, which take turns as the camera zooms.

    ``layers`` is (2, 3, WORLD, WORLD) in [0, 1]; ``centers`` (2, 2) is where the camera stands in each, (x, y) pixels.
    """

    layers: Tensor
    centers: Tensor


def build_world(one: Tensor, other: Tensor, rng: np.random.Generator) -> World:
    """A new world with a photograph in each layer.

    Few photographs have to stand for the variety of real footage, so each is cropped at random scale, place and
    orientation and its channels permuted, inverted and gamma-corrected.
    """
    layers = torch.stack([_layer(one, rng), _layer(other, rng)])
    return World(layers, torch.from_numpy(rng.uniform(0, 2 * WORLD, (2, 2))).float())


def _layer(photo: Tensor, rng: np.random.Generator) -> Tensor:
    layer = _random_crop(photo, rng).clamp(0, 1)  # interpolation rounds beyond, and less than nothing has no power
    if rng.random() < 0.5:
        layer = 1 - layer
    for channel in layer:
        channel.pow_(float(np.exp(rng.uniform(-0.7, 0.7))))
    return _even_contrast(layer)[torch.from_numpy(rng.permutation(3))]


def _even_contrast(world: Tensor, radius: int = 16) -> Tensor:
    """Same mean and contrast in every neighbourhood: where nothing is to be seen, no motion can be seen either."""

    def blur(picture: Tensor) -> Tensor:
        """Mean over a square window, from sums over all that lies above and to the left."""
        padded, window = F.pad(picture, [radius] * 4, mode="reflect"), 2 * radius + 1
        sums = F.pad(padded.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
        rows = sums[:, window:] - sums[:, :-window]
        return ((rows[..., window:] - rows[..., :-window]) / window**2).float()

    detail = world - blur(world)
    contrast = blur(detail.square()).clamp(min=0).sqrt()  # differences of sums leave -1e-15 for nothing
    return (0.5 + 0.2 * detail / (contrast + 0.03)).clamp(0, 1)


def _random_crop(photo: Tensor, rng: np.random.Generator) -> Tensor:
    side = min(photo.shape[1:])
    size = int(rng.uniform(min(1.0, 160 / side), 1.0) * side)
    top, left = (int(rng.integers(n - size + 1)) for n in photo.shape[1:])
    crop = photo[None, :, top : top + size, left : left + size]
    crop = F.interpolate(crop, size=(WORLD, WORLD), mode="bilinear", antialias=True)[0]
    crop = torch.rot90(crop, int(rng.integers(4)), (1, 2))
    return crop.flip(2) if rng.random() < 0.5 else crop


def camera_path(label: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Camera pose in every frame, (frames, 4): x, y in image pixels, log scale (world per image pixel), angle.

    Signs follow the picture as a viewer sees it: panning left, the camera moves left and the scene moves right.
    The image's y axis points down. In every frame, scale modulo two octaves and angle modulo a turn are uniform.
    """
    clock = np.arange(frames) - (frames - 1) / 2  # frames from the middle
    pose = np.zeros((frames, 4))
    speed = rng.uniform(0.9, 1.7)  # image pixels per frame
    turn = rng.uniform(0.03, 0.055)  # radians, or log scale, per frame: as much at the frame's border
    motion = TEMPLATES[label].partition(" over")[0].partition(" on")[0].partition(" of")[0]
    shake = _shake(clock, rng)
    match motion:
        case "Panning left":
            pose[:, 0] = -speed * clock
        case "Panning right":
            pose[:, 0] = speed * clock
        case "Tilting up":
            pose[:, 1] = -speed * clock
        case "Tilting down":
            pose[:, 1] = speed * clock
        case "Zooming in":
            pose[:, 2] = -turn * clock
        case "Zooming out":
            pose[:, 2] = turn * clock
        case "Rotating clockwise":
            pose[:, 3] = turn * clock
        case "Rotating counter-clockwise":
            pose[:, 3] = -turn * clock
        case "Shaking":
            pose[:, :2] = shake
    pose[:, :2] += rng.uniform(-0.25, 0.25, (frames, 2))  # no class is ever perfectly still
    pose[:, 2:] += rng.uniform(0, (2 * OCTAVE, 2 * np.pi))
    return pose


def _shake(clock: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unsteady hands: two waves per axis, periods of 5 to 9 frames, (frames, 2) image pixels."""
    periods, phases = rng.uniform(5, 9, (2, 2)), rng.uniform(0, 2 * np.pi, (2, 2))
    amplitude = rng.uniform(0.8, 1.8, (2, 2))
    return (amplitude * np.sin(2 * np.pi * clock[:, None, None] / periods + phases)).sum(-1)


def render(world: World, path: np.ndarray, height: int, width: int) -> np.ndarray:
    """Film a world along a camera path: uint8 (T, height, width, 3).

    A layer is seen at scales of half to twice its own, most at its own and not at all at the ends, where it leaves
    unseen and comes in again at the other end; the contrast of the sum of the two layers is even throughout.
    """
    x, y, log_scale, angle = torch.from_numpy(path).float().T[:, :, None, None]
    step = 1 / SUPERSAMPLING
    v, u = torch.meshgrid(
        torch.arange(height * SUPERSAMPLING) * step - (height - step) / 2,
        torch.arange(width * SUPERSAMPLING) * step - (width - step) / 2,
        indexing="ij",
    )
    u, v, cos, sin = u + x, v + y, angle.cos(), angle.sin()
    turned = torch.stack((cos * u - sin * v, sin * u + cos * v), -1)  # (T, H, W, 2)
    frames = torch.full((1,), 0.5)
    for i, (layer, center) in enumerate(zip(world.layers, world.centers, strict=True)):
        octaves = (log_scale / OCTAVE - i + 1) % 2 - 1  # in [-1, 1)
        # in layer pixels: center + turned, scaled; from -1 to 1 over the layer:
        grid = turned * (2 / WORLD * (octaves * OCTAVE).exp()[..., None]) + (2 / WORLD * (center + 0.5) - 1)
        layers = layer.expand(len(path), -1, -1, -1)
        seen = F.grid_sample(layers, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        frames = frames + (torch.pi / 2 * octaves)[:, None].cos() * (F.avg_pool2d(seen, SUPERSAMPLING) - 0.5)
    return (frames * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
