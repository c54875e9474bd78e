"""Files that break decoders: each yields the correct frames or one clear error in time, never a hang or a crash."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from support.paths import SHARED_DATA
from support.videos import decode_all, encode, truncate

from data_pipelines.io.errors import DataError
from data_pipelines.video.decoding_process import decoding_process
from data_pipelines.video.reader import open_video, read_frames

REAL_FILES = SHARED_DATA / "awkward"
UNDECODABLE = {
    "audio_only.mp4",
    "bitflips_in_mdat.mp4",
    "corrupted.mp4",
    "empty.mp4",
    "random_bytes.mp4",
    "truncated_moov_first.mp4",
}
TIMEOUT = 5


def flip_bytes(file: Path, source: Path) -> None:
    content = np.frombuffer(source.read_bytes(), np.uint8).copy()
    positions = np.random.default_rng(0).integers(len(content) // 4, 3 * len(content) // 4, size=300)
    content[positions] ^= 255
    file.write_bytes(content.tobytes())


def encode_audio(file: Path) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def encode_variable_rate(file: Path) -> Path:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i * i * 3, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def save_gif(file: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (6, 40, 60, 3), np.uint8)
    first, *others = map(Image.fromarray, frames)
    first.save(file, save_all=True, append_images=others)
    return file


def encode_in_own_process(*arguments, **options):
    """SVT-AV1 gives its process, if it runs as root, and all its children a real-time priority."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(encode, *arguments, **options).result()


@pytest.fixture(scope="module")
def decodable(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("decodable")
    return [
        encode(folder / "one_frame.mp4", frames=1),
        encode(folder / "three frames, 日本 #1.mp4", frames=3),
        encode(folder / "narrow.mp4", width=16, height=64),
        encode(folder / "two_wide.mp4", width=2, height=64),
        encode(folder / "slow.mp4", frames=5, rate=Fraction(1, 2)),
        encode(folder / "long_gop.mp4", options={"x264-params": "keyint=300"}, frames=120),
        encode(folder / "vp9.webm", "libvpx-vp9"),
        encode_in_own_process(folder / "av1.mp4", "libsvtav1", frames=10),
        encode(folder / "stream.ts"),
        encode(folder / "packed.avi", "mpeg4", bframes=2),
        encode(folder / "ten_bit.mkv", pixels="yuv420p10le", frames=12),
        encode(folder / "grey.mp4", pixels="gray", frames=12),
        encode(folder / "odd_size.mp4", pixels="yuv444p", width=77, height=53),
        encode_variable_rate(folder / "variable_rate.mkv"),
        save_gif(folder / "animation.gif"),
    ]


@pytest.fixture(scope="module")
def undecodable(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("undecodable")
    intact = encode(folder / "intact.mp4", faststart=True)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no video\n" * 100)
    (folder / "text.mp4").write_text("404 not found")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    truncate(intact, folder / "truncated.mp4")
    flip_bytes(folder / "flipped.mp4", intact)
    encode_audio(folder / "audio.mp4")
    intact.unlink()
    return sorted(folder.iterdir())


class WholeVideos(torch.utils.data.Dataset):
    """The frames, or the error message, of whole files."""

    def __init__(self, paths: list[Path], backend: str) -> None:
        self.paths, self.backend = paths, backend

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray | str:
        try:
            with open_video(self.paths[index], self.backend, timeout=TIMEOUT) as video:
                return video.read(range(video.num_frames))
        except DataError as error:
            return str(error)


def read_in_worker(paths: list[Path], backend: str) -> list[np.ndarray | str]:
    dataset = WholeVideos(paths, backend)
    return list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1, collate_fn=lambda item: item))


def check_results(paths: list[Path], undecodable: set[Path], backend: str) -> None:
    """Every file gives RGB frames or a one-line error; the reference backends give exactly the right result."""
    is_reference = backend in ("auto", "pyav")
    for path, result in zip(paths, read_in_worker(paths, backend), strict=True):
        if isinstance(result, str):
            assert path.name in result and len(result.splitlines()) == 1 and "Traceback" not in result
        else:
            assert result.dtype == np.uint8 and result.ndim == 4 and result.shape[-1] == 3 and len(result)
        if is_reference:
            assert isinstance(result, str) == (path in undecodable), (path, result)
            if path not in undecodable:
                np.testing.assert_array_equal(result, decode_all(path), err_msg=str(path))


@pytest.mark.parametrize("backend", ["auto", "decord", "pyav", "torchcodec"])
def test_encoded_files(decodable, undecodable, backend):
    if backend == "torchcodec":
        pytest.importorskip(
            "torchcodec.decoders",
            reason="torchcodec or the system's FFmpeg is not installed",
            exc_type=(ImportError, RuntimeError),
        )
    check_results([*decodable, *undecodable], set(undecodable), backend)


@pytest.mark.parametrize("backend", ["auto", "decord", "pyav"])
def test_real_files(backend):
    if not REAL_FILES.is_dir():
        pytest.skip(f"the sample files {REAL_FILES.name} are not available")
    paths = sorted(path for path in REAL_FILES.iterdir() if path.is_file())
    check_results(paths, {path for path in paths if path.name in UNDECODABLE}, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_memory_does_not_grow(tmp_path, backend):
    paths = [encode(tmp_path / f"{i}.mp4", width=112, height=112, frames=32) for i in range(4)]
    rng = np.random.default_rng(0)
    memory = {}  # after the first hundreds of reads, the allocator has what it needs
    for read in range(1, 1501):
        read_frames(paths[read % 4], rng.integers(32, size=8), backend)
        if read in (700, 1500):
            # pages of its own: the share of a library depends on how many other processes use it
            memory[read] = psutil.Process(decoding_process().pid).memory_full_info().uss
    assert memory[1500] < 1.05 * memory[700], memory
