"""Check every video backend: it reads a clip that is written here, and each frame is compared with the original."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from data_pipelines.datasets.camera_motion.encoding import write_video
from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.backends import READERS
from data_pipelines.video.decoding_process import RemoteReader
from lookupvivit.cli.doctor.report import Finding, fail, ok, warn

BACKENDS = tuple(sorted(READERS, key=lambda name: name != "pyav"))  # PyAV first: the others are compared with it
# The other backend reads folders of images.
PACKAGES = {"decord": "decord", "pyav": "av", "seek": "av", "torchcodec": "torchcodec"}
NOT_INSTALLED = {
    "decord": warn("not installed", "interlaced videos are read more slowly; pip install decord (x86-64 only)"),
    **dict.fromkeys(("pyav", "seek"), fail("not installed", "no other backend can read all files; pip install av")),
    "torchcodec": ok("not installed; optional (pip install 'lookupvivit[torchcodec]')"),
}
FRAMES, HEIGHT, WIDTH = 16, 64, 80
SQUARE = 12  # pixels
MAX_ERROR = 8.0  # mean difference of a frame, in grey levels
SECONDS = 30.0  # time limit for opening, and for reading


def draw_frames() -> np.ndarray:
    """A bright square that moves four pixels per frame over a grey ramp, uint8 (FRAMES, HEIGHT, WIDTH, 3)."""
    ramp = np.linspace(40, 120, WIDTH).round().astype(np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (FRAMES, HEIGHT, WIDTH, 3)).copy()
    for index, frame in enumerate(frames):
        frame[16 : 16 + SQUARE, 4 * index : 4 * index + SQUARE] = 220
    return frames


class VideoChecks:
    """The backends, which are checked one after another on the same clip.

    Args:
        folder: an empty folder, into which the clip is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.original = folder, draw_frames()
        self.decoded: dict[str, np.ndarray] = {}  # by backend; the first is the reference of the others

    def check(self, backend: str) -> Finding:
        """Check one of `BACKENDS`."""
        package = PACKAGES.get(backend)
        if package and importlib.util.find_spec(package) is None:
            return NOT_INSTALLED[backend]
        path = self._write_clip() if package else self._write_images()
        try:
            reader = RemoteReader(backend, str(path), SECONDS)
            frames = reader.read(np.arange(reader.num_frames))
            reader.close()
        except VideoDecodeError as error:
            return _failure(backend, str(error))
        return self.compare(backend, frames)

    def compare(self, backend: str, frames: np.ndarray) -> Finding:
        """Compare decoded frames with the original, and with those of the first backend."""
        if frames.shape != self.original.shape:
            return _failure(backend, f"read {frames.shape}, expected {self.original.shape} (T, H, W, 3)")
        differences = np.abs(frames[:, None].astype(np.float32) - self.original[None])  # (T, T, H, W, 3)
        errors = differences.mean((2, 3, 4))  # of every decoded frame from every original frame
        nearest, largest_error = errors.argmin(1), float(errors.diagonal().max())
        wrong = np.flatnonzero(nearest != np.arange(FRAMES))
        if len(wrong):
            return _failure(backend, f"requested frame {wrong[0]}, received frame {nearest[wrong[0]]}")
        if largest_error > MAX_ERROR:
            return _failure(
                backend, f"frames differ by {largest_error:.1f} grey levels, expected at most {MAX_ERROR:g}"
            )
        found = f"{FRAMES} frames of {WIDTH}x{HEIGHT} correct to {largest_error:.1f} grey levels"
        if backend not in PACKAGES:
            return ok(found, grey_levels=largest_error)
        return self._compare_with_first(backend, frames, found, largest_error)

    def _compare_with_first(self, backend: str, frames: np.ndarray, found: str, largest_error: float) -> Finding:
        first = next(iter(self.decoded), None)
        self.decoded[backend] = frames
        if first is None:
            return ok(found, grey_levels=largest_error)
        difference = int(np.abs(frames.astype(np.int16) - self.decoded[first]).max())
        facts = {"grey_levels": largest_error, "difference": difference}
        if difference:
            found += f", but they differ from {first}'s by up to {difference}"
            return warn(found, "train and test with the same data.backend", **facts)
        return ok(f"{found}, equal to {first}'s", **facts)

    def _write_clip(self) -> Path:
        path = self.folder / "clip.mp4"
        if not path.exists():
            write_video(path, self.original)
        return path

    def _write_images(self) -> Path:
        from PIL import Image

        path = self.folder / "images"
        path.mkdir(exist_ok=True)
        for index, frame in enumerate(self.original):
            Image.fromarray(frame).save(path / f"{index}.png")
        return path


def _failure(backend: str, found: str) -> Finding:
    """A warning for the backend that is optional, a failure for the others."""
    if backend == "torchcodec":
        return warn(
            found,
            "torchcodec needs a supported version of the system's FFmpeg (package ffmpeg); it is optional, and "
            "data.backend=auto does not use it",
        )
    advice = f"pip install --force-reinstall {PACKAGES.get(backend, 'pillow')}"
    return fail(found, f"{advice}, or set data.backend=pyav" if backend == "decord" else advice)
