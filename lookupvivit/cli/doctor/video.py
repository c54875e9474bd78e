"""Every video backend reads a clip that is written here, frame by frame what was drawn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from data_pipelines.datasets.camera_motion.frames import write_video
from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.backends import READERS
from data_pipelines.video.decoding_process import RemoteReader
from lookupvivit.cli.doctor.report import Finding, fail, ok, warn

FRAMES, HEIGHT, WIDTH = 16, 64, 80
BLOCK = 12  # pixels of the square that moves
FAR = 8.0  # mean grey levels between a frame and its drawing, from which the picture is another
SECONDS = 30.0  # to open, and to read
PACKAGES = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}
ABSENT = {
    "decord": warn("not installed", "PyAV reads all videos, more slowly; pip install decord (x86-64 only)"),
    "pyav": fail("not installed", "many files can be read by nothing else; pip install av"),
    "torchcodec": ok("not installed, and not needed (pip install 'lookupvivit[torchcodec]')"),
}


def drawing() -> np.ndarray:
    """uint8 (FRAMES, HEIGHT, WIDTH, 3): a bright square that moves four pixels a frame over a ramp of grey."""
    frames = np.repeat(np.linspace(40, 120, WIDTH)[None, None, :, None], FRAMES, 0)
    frames = np.broadcast_to(frames, (FRAMES, HEIGHT, WIDTH, 3)).round().astype(np.uint8)
    for index, frame in enumerate(frames):
        frame[16 : 16 + BLOCK, 4 * index : 4 * index + BLOCK] = 220
    return frames


class VideoChecks:
    """The backends, one after the other on the same clip.

    Args:
        folder: an empty one; the clip is written here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.drawn = folder, drawing()
        self.read: dict[str, np.ndarray] = {}  # what each backend gave

    def check(self, backend: str) -> Finding:
        """One of ``backends.READERS``."""
        if backend in PACKAGES and importlib.util.find_spec(PACKAGES[backend]) is None:
            return ABSENT[backend]
        path = self._pictures() if backend == "pictures" else self._clip()
        try:
            reader = RemoteReader(backend, str(path), SECONDS)
            frames = reader.read(np.arange(reader.num_frames))
            reader.close()
        except VideoDecodeError as error:
            return self._broken(backend, str(error))
        return self.compare(backend, frames)

    def compare(self, backend: str, frames: np.ndarray) -> Finding:
        """What ``backend`` read against the drawing, and against the first backend of a video that was right."""
        if frames.shape != self.drawn.shape:
            return self._broken(backend, f"read {frames.shape}, written were {self.drawn.shape} (T, H, W, 3)")
        distances = np.abs(frames[:, None].astype(np.float32) - self.drawn[None]).mean((2, 3, 4))
        nearest, far = distances.argmin(1), float(distances.diagonal().max())
        wrong = np.flatnonzero(nearest != np.arange(FRAMES))
        if len(wrong):
            return self._broken(backend, f"asked for frame {wrong[0]}, it gave frame {nearest[wrong[0]]}")
        if far > FAR:
            return self._broken(backend, f"its pictures are {far:.1f} grey levels off, {FAR:g} at most would be right")
        found = f"{FRAMES} frames of {WIDTH}x{HEIGHT} right, {far:.1f} grey levels off at most"
        if backend == "pictures":
            return ok(found, grey_levels=far)
        other = next(iter(self.read), None)
        self.read[backend] = frames
        if other is None:
            return ok(found, grey_levels=far)
        apart = int(np.abs(frames.astype(np.int16) - self.read[other]).max())
        if apart:
            return warn(
                f"{found}, but up to {apart} from what {other} reads",
                "train and test with the same data.backend",
                grey_levels=far,
                apart=apart,
            )
        return ok(f"{found}, equal to {other}'s", grey_levels=far, apart=0)

    def _clip(self) -> Path:
        path = self.folder / "clip.mp4"
        if not path.exists():
            write_video(path, self.drawn)
        return path

    def _pictures(self) -> Path:
        from PIL import Image

        path = self.folder / "pictures"
        path.mkdir(exist_ok=True)
        for index, frame in enumerate(self.drawn):
            Image.fromarray(frame).save(path / f"{index}.png")
        return path

    @staticmethod
    def _broken(backend: str, what: str) -> Finding:
        """The backends that are not needed for everything are a warning."""
        if backend == "torchcodec":
            return warn(
                what,
                "it needs the system's FFmpeg (package ffmpeg) in a version that it knows; nothing else "
                "is affected, leave data.backend at auto",
            )
        package = PACKAGES.get(backend, "pillow")
        advice = f"pip install --force-reinstall {package}"
        return fail(what, f"{advice}, or go without it by data.backend=pyav" if backend == "decord" else advice)


BACKENDS = tuple(sorted(READERS, key=lambda name: name != "pyav"))  # PyAV first: the truth, see backends.py
