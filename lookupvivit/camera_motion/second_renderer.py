"""Videos of the camera_motion classes that a model has not been made for: a second renderer, written independently.

It shares the class names and the validation photographs with `data_pipelines.datasets.camera_motion` and nothing else.
Its videos look like those of an editor who pans over photographs (the Ken Burns effect): upright photographs, ordinary
frame sizes and rates, moves that accelerate and brake, usual encoder settings. Each class is obvious at first sight.

A class names what the camera does: when it pans to the left, the scene moves to the right; when it rotates clockwise,
the scene turns counter-clockwise. Coordinates are in pixels, x to the right, y down; angles are clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image, ImageEnhance

from data_pipelines.datasets.camera_motion.photographs import PHOTOGRAPHS, Photograph, load_photograph
from data_pipelines.io.atomic import move_folder, new_folder
from data_pipelines.video.streams import file_url

CLASSES = (
    "Panning left over something",
    "Panning right over something",
    "Tilting up over something",
    "Tilting down over something",
    "Zooming in on something",
    "Zooming out of something",
    "Rotating clockwise over something",
    "Rotating counter-clockwise over something",
    "Standing still over something",
    "Shaking over something",
)
MOVES = {  # class -> which of (pan, tilt, zoom out, rotate), and its sign
    name: (number // 2, sign)
    for number, (name, sign) in enumerate(zip(CLASSES[:8], (-1, 1, -1, 1, -1, 1, 1, -1), strict=True))
}
STILL, SHAKING = CLASSES[8:]
# Mean speeds per second, log-uniform: fractions of the frame's width or height, log of the scale, radians.
SPEEDS = ((0.2, 0.6), (0.2, 0.6), (0.18, 0.5), (0.26, 1.0))

SIZES = ((320, 240), (240, 320), (426, 240), (240, 426), (352, 288), (288, 288))  # width, height
RATES = (*map(Fraction, (10, 12, 15, 24, 25, 30, 50)), Fraction(30000, 1001))  # frames per second
SECONDS = (1.0, 3.0)
MIN_SCALE = 0.5  # photograph pixels per frame pixel: enlarged further, photographs look blurred
MIN_DETAIL = 3.0  # grey levels of 255, see `_detail`
THUMBNAIL = 64  # pixels of a thumbnail's short side
MAX_DRAWS = 1000


class Video(NamedTuple):
    """A rendered video: frames uint8 (T, H, W, 3), frames per second, and one of `CLASSES`."""

    frames: np.ndarray
    fps: Fraction
    class_name: str


class Encoding(NamedTuple):
    """Suffix of the file, encoder and its options."""

    suffix: str
    codec: str
    options: dict[str, str]


ENCODINGS = (
    Encoding(".mp4", "libx264", {"preset": "veryfast", "crf": "23"}),  # key frames 250 frames apart, 3 B-frames
    Encoding(".mp4", "libx264", {"preset": "medium", "crf": "28"}),
    Encoding(".mkv", "libx264", {"preset": "medium", "crf": "20", "g": "48", "bf": "2"}),
    Encoding(".mp4", "mpeg4", {"b": "1500k", "g": "12", "bf": "2"}),
    Encoding(".mkv", "mpeg4", {"b": "900k", "g": "24"}),
)


@dataclass(frozen=True)
class Path2D:
    """The camera's path at N times, relative to where it is placed, in units of frame pixels.

    Attributes:
        centre: (N, 2) of the frame's centre.
        scale: (N,), 1 on average.
        angle: (N,) in radians.
    """

    centre: np.ndarray
    scale: np.ndarray
    angle: np.ndarray

    def axes(self) -> np.ndarray:
        """(N, 2, 2): a column is how far one frame pixel to the right, or down, goes."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.scale[:, None, None] * np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)

    def bounds(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and largest x and y that a frame of ``size`` reaches."""
        corners = np.array([(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) * size  # (4, 2)
        reached = self.centre[:, None] + np.einsum("nij,cj->nci", self.axes(), corners)
        return reached.min((0, 1)), reached.max((0, 1))


@dataclass(frozen=True)
class Shot:
    """A camera path, placed in a photograph.

    Attributes:
        image: the photograph.
        size: width and height of the frames.
        coefficients: (T, S, 6), for S moments while the shutter is open: a, b, c, d, e, f of PIL's affine transform.
        oversampling: the factor by which frames are rendered larger and reduced, against aliasing.
    """

    image: Image.Image
    size: tuple[int, int]
    coefficients: np.ndarray
    oversampling: int

    def frame(self, number: int) -> np.ndarray:
        """Frame ``number``, the mean over the shutter's moments: float32 (H, W, 3) in [0, 255]."""
        moments = [self.moment(coefficients) for coefficients in self.coefficients[number]]
        return np.mean([np.asarray(moment, dtype=np.float32) for moment in moments], axis=0)

    def moment(self, coefficients: np.ndarray) -> Image.Image:
        """What the camera sees at one moment."""
        factor = self.oversampling
        width, height = (factor * length for length in self.size)
        data = tuple((coefficients / [factor, factor, 1, factor, factor, 1]).tolist())
        resampling = Image.Resampling.BILINEAR if factor > 1 else Image.Resampling.BICUBIC
        moment = self.image.transform((width, height), Image.Transform.AFFINE, data, resampling)
        return moment.reduce(factor) if factor > 1 else moment


def render(index: int, seed: int) -> Video:
    """Render video ``index`` of the set ``seed``; its class is ``CLASSES[index % 10]``.

    The same numbers always give the same frames.

    Raises DataError if the packages with the photographs are not installed.
    """
    class_name = CLASSES[index % len(CLASSES)]
    rng = np.random.default_rng((seed, index))
    photographs = PHOTOGRAPHS["validation"]
    photograph = photographs[(index + index // len(CLASSES)) % len(photographs)]  # equally many per class
    shot, fps = _draw_shot(class_name, photograph, rng)
    frames = [shot.frame(number) for number in range(len(shot.coefficients))]
    if class_name == STILL and rng.random() < 0.5:
        _move_object_through(frames, rng)
    noise = rng.choice((0.0, rng.uniform(0.5, 4.0)))  # standard deviation, grey levels
    width, height = shot.size
    noisy = [frame + noise * rng.standard_normal((height, width, 1), dtype=np.float32) for frame in frames]
    return Video(np.stack([_to_uint8(frame) for frame in noisy]), fps, class_name)


def write_videos(folder: str | Path, count: int, seed: int) -> list[Path]:
    """Render ``count`` videos into ``folder``/<class name>/<index>.mp4 or .mkv, equally many of each class.

    This is the layout ``folders`` (`data_pipelines.datasets.class_folders`) of a set that is only tested on. The folder
    appears when it is complete. The same numbers give the same files with the same versions of the encoders.

    Returns:
        The files, in the order of their indices.

    Raises:
        ValueError: ``count`` is not a positive multiple of 10, the number of classes.
        FileExistsError: ``folder`` exists.
        DataError: see `render`.
    """
    if count <= 0 or count % len(CLASSES):
        raise ValueError(f"count: found {count}, expected a positive multiple of {len(CLASSES)}, the number of classes")
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder}: exists, expected a new folder")
    temporary = folder.with_name(f".writing-{folder.name}")
    new_folder(temporary)
    for name in CLASSES:
        (temporary / name).mkdir()
    files = []
    for index in range(count):
        video = render(index, seed)
        encoding = encoding_of(index, seed)
        files.append(Path(video.class_name, f"{index:05}{encoding.suffix}"))
        encode(temporary / files[-1], video, encoding)
    move_folder(temporary, folder)
    return [folder / file for file in files]


def encoding_of(index: int, seed: int) -> Encoding:
    """How video ``index`` of the set ``seed`` is encoded, independently of its class."""
    return ENCODINGS[np.random.default_rng((seed, index, 1)).integers(len(ENCODINGS))]


def encode(file: Path, video: Video, encoding: Encoding) -> None:
    """Write a video's file, always the same bytes."""
    height, width = video.frames.shape[1:3]
    # bitexact: without random identifiers
    with av.open(file_url(file), "w", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(encoding.codec, rate=video.fps, options=encoding.options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in video.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _draw_shot(class_name: str, photograph: Photograph, rng: np.random.Generator) -> tuple[Shot, Fraction]:
    """Draw camera paths until one fits into the photograph and shows details; and the frame rate."""
    for _ in range(MAX_DRAWS):
        size, fps = SIZES[rng.integers(len(SIZES))], RATES[rng.integers(len(RATES))]
        seconds = rng.uniform(*SECONDS)
        times = np.arange(round(seconds * fps))[:, None] / float(fps)  # (T, 1)
        if class_name != STILL and rng.random() < 0.3:  # motion blur, of an open shutter
            times = times + np.arange(3) / 3 * rng.uniform(0.2, 0.5) / float(fps)
        path = _draw_path(class_name, times.ravel(), size, float(fps), rng)
        shot = _place(path, photograph, size, times.shape[1], rng)
        if shot is not None and _detail(shot) > MIN_DETAIL:
            return shot, fps
    raise RuntimeError(f"{class_name}, {photograph.file}: found no shot in {MAX_DRAWS} draws")


def _draw_path(
    class_name: str, times: np.ndarray, size: tuple[int, int], fps: float, rng: np.random.Generator
) -> Path2D:
    """The move of a class at ``times`` (N,), with the unsteadiness of a hand."""
    short, seconds = min(size), times[-1]
    moved = np.zeros((4, len(times)))  # pan and tilt in frame pixels, log of the scale, radians
    if class_name in MOVES:
        axis, sign = MOVES[class_name]
        distance = sign * seconds * np.exp(rng.uniform(*np.log(SPEEDS[axis])))
        moved[axis] = distance * _eased(times / seconds, rng)
        if axis < 2:
            moved[axis] *= size[axis]
            moved[1 - axis] = rng.uniform(-0.06, 0.06) * moved[axis]  # a move by hand is not quite straight
    if class_name == SHAKING:
        sway, roll = short * rng.uniform(0.04, 0.09), rng.uniform(0.005, 0.03)
        band = (2.0, min(6.0, 0.4 * fps))
    else:  # on a tripod or in a calm hand
        steadiness = rng.choice((0.0, rng.uniform(0.2, 1.0)))
        sway, roll = 0.005 * short * steadiness, 0.002 * steadiness
        band = (0.3, 2.5)
    shake = np.stack([sway * _noise(times, band, rng), sway * _noise(times, band, rng)], axis=1)
    moved[3] += roll * _noise(times, band, rng)

    pivot = rng.uniform(-0.12, 0.12, 2) * size  # the point of the frame that zooms and rotations leave where it is
    scale = np.exp(moved[2] - moved[2].mean())
    path = Path2D(moved[:2].T, scale, moved[3])
    centre = path.centre + np.einsum("nij,nj->ni", path.axes(), shake - pivot)
    return Path2D(centre, scale, path.angle)


def _eased(progress: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Map [0, 1] to [0, 1]: accelerate at the start, then move steadily, then brake; or some of these."""
    start, end = rng.choice((0.0, rng.uniform(0.1, 0.4)), 2)
    fine = np.linspace(0, 1, 513)
    ramps = [np.clip(x / ramp, 0, 1) if ramp else np.ones_like(x) for x, ramp in ((fine, start), (1 - fine, end))]
    speed = np.prod([(1 - np.cos(np.pi * ramp)) / 2 for ramp in ramps], axis=0)
    position = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    return np.interp(progress, fine, position / position[-1])


def _noise(times: np.ndarray, band: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Noise (N,) with frequencies in ``band`` (Hz), larger the slower, scaled to a maximum of 1."""
    frequencies = rng.uniform(*band, 24)
    phases, amplitudes = rng.uniform(0, 2 * np.pi, 24), np.abs(rng.standard_normal(24)) / frequencies
    noise = np.cos(2 * np.pi * frequencies * times[:, None] + phases) @ amplitudes
    return noise / np.abs(noise).max()


def _place(
    path: Path2D, photograph: Photograph, size: tuple[int, int], moments: int, rng: np.random.Generator
) -> Shot | None:
    """Scale a path and put it somewhere in the photograph; None if it is too long for that."""
    low, high = path.bounds(size)
    height, width = load_photograph(photograph).shape[1:]
    room = np.array([width, height]) - 2.0  # bicubic interpolation reads a pixel more
    largest = (room / (high - low)).min()  # photograph pixels per unit of the path
    smallest = MIN_SCALE / path.scale.min()
    if smallest > largest:
        return None
    unit = rng.uniform(max(smallest, 0.7 * largest), largest)
    origin = 1 - unit * low + rng.random(2) * (room - unit * (high - low))
    axes = unit * path.axes()
    corner = origin + unit * path.centre - np.einsum("nij,j->ni", axes, np.array(size) / 2)
    coefficients = np.concatenate([axes, corner[:, :, None]], axis=2).reshape(-1, moments, 6)
    return Shot(_graded(photograph, rng), size, coefficients, oversampling=2 if unit * path.scale.max() > 1.1 else 1)


def _detail(shot: Shot) -> float:
    """How visible motion is in its least visible direction: at the start, halfway or at the end, where it is the least.

    It is the root mean square difference of a thumbnail's neighbouring pixels in this direction, in grey levels: the
    root of the smaller eigenvalue of the structure tensor. It is 0 if all edges are parallel.
    """
    last = len(shot.coefficients) - 1
    moments = [shot.moment(shot.coefficients[number, 0]).convert("L") for number in (0, last // 2, last)]
    reduction = min(shot.size) // THUMBNAIL
    gradients = [np.gradient(np.asarray(moment.reduce(reduction), np.float32)) for moment in moments]
    tensors = [[[np.mean(a * b) for b in gradient] for a in gradient] for gradient in gradients]
    return float(np.sqrt(np.linalg.eigvalsh(np.array(tensors)).min().clip(0)))


def _graded(photograph: Photograph, rng: np.random.Generator) -> Image.Image:
    """A photograph, perhaps mirrored, in the colours of an editor's choice."""
    pixels = load_photograph(photograph).permute(1, 2, 0).numpy()
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    pixels = pixels ** rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
    saturation = rng.choice((0.0, rng.uniform(0.6, 1.4)), p=(0.1, 0.9))
    return ImageEnhance.Color(Image.fromarray(_to_uint8(255 * pixels))).enhance(saturation)


def _move_object_through(frames: list[np.ndarray], rng: np.random.Generator) -> None:
    """Paste a small cut-out, which crosses the frames while the camera stands still, into all ``frames``."""
    height, width = frames[0].shape[:2]
    radius = round(rng.uniform(0.07, 0.12) * min(height, width))
    photograph = PHOTOGRAPHS["validation"][rng.integers(len(PHOTOGRAPHS["validation"]))]
    source = _graded(photograph, rng)
    side = int(rng.uniform(0.3, 0.6) * min(source.size))
    left, top = (int(rng.integers(length - side + 1)) for length in source.size)
    cutout = source.resize((2 * radius, 2 * radius), Image.Resampling.LANCZOS, (left, top, left + side, top + side))

    y, x = np.mgrid[-radius:radius, -radius:radius] + 0.5
    mask = np.clip(radius - np.hypot(x, y * rng.uniform(1.0, 1.6)), 0, 2) / 2  # an ellipse with soft edges
    start, end = rng.permutation([-radius, width + radius])
    heights = rng.uniform(radius, height - radius, 2)
    layers = [Image.fromarray(np.float32(layer)) for layer in (*np.asarray(cutout).transpose(2, 0, 1), mask)]
    for frame, corner in zip(frames, np.linspace((start, heights[0]), (end, heights[1]), len(frames)), strict=True):
        _paste(frame, layers, corner - radius)


def _paste(frame: np.ndarray, layers: list[Image.Image], corner: np.ndarray) -> None:
    """Blend red, green, blue and opacity into ``frame``, its left and top at ``corner``, between pixels or outside."""
    left, top = (int(n) for n in np.floor(corner))
    width, height = (length + 1 for length in layers[0].size)
    shift = (1, 0, left - corner[0], 0, 1, top - corner[1])
    *colours, opacity = (
        np.asarray(layer.transform((width, height), Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR))
        for layer in layers
    )
    inside = np.s_[max(0, -top) : frame.shape[0] - top, max(0, -left) : frame.shape[1] - left]
    target = frame[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    target += opacity[inside][..., None] * (np.stack(colours, axis=-1)[inside] - target)


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
