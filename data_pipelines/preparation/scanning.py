"""Looking through a whole collection once: which videos can be read, what they are like, and copies that train faster.

Every video is handled in a decoding process (`data_pipelines.video.decoding_process`), so that none can stop the
others. What is known of a video is a row of a CSV file that grows during the
scan; an interrupted scan resumes from it, and a file that changed since is looked at again.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.io.listing import IMAGE_SUFFIXES
from data_pipelines.io.progress import progress
from data_pipelines.io.tar_paths import containing_file, size_and_mtime
from data_pipelines.video.backends import PictureReader, frame_rate, jumps_are_exact, open_stream, stream_rate
from data_pipelines.video.decoding_process import decoding_process


@dataclass(frozen=True)
class Row:
    """One video of a collection.

    Attributes:
        path, label: as in the manifest.
        status: "ok", "broken" or "missing".
        frames, fps, seconds: length; fps is the average rate, a fraction such as 30000/1001.
        width, height: pixels as shown, after rotation.
        bytes, modified: of the file, and when it last changed (ns).
        codec: FFmpeg's name.
        exact_jumps: whether decoding may begin at any key frame; else every clip is decoded from the start.
        reason: why it is not ok.
        copy: where the copy is, if one was made.
    """

    path: str
    label: int
    status: str
    frames: int = 0
    fps: str = ""
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    bytes: int = 0
    modified: int = 0
    codec: str = ""
    exact_jumps: bool = False
    reason: str = ""
    copy: str = ""


@dataclass(frozen=True)
class Copies:
    """How copies are made: H.264 in mp4 without sound, quick to decode, with closed groups of pictures.

    Attributes:
        folder: where they go, under the same relative names.
        root: folder that these names are relative to.
        short_side: pixels; smaller videos keep their size.
        keyframe_every: frames between key frames: a random clip costs half as many frames beside its own.
        crf: x264's constant rate factor.
    """

    folder: Path
    root: Path
    short_side: int = 256
    keyframe_every: int = 16
    crf: int = 20

    def target(self, path: str) -> Path:
        """Where the copy of a video goes."""
        relative = os.path.relpath(path, self.root)
        if relative.startswith(".."):
            relative = os.path.abspath(path).lstrip("/")
        return (self.folder / relative).with_suffix(".mp4")


def inspect(path: str) -> dict[str, Any]:
    """Decode all of a video and say what it is like: fields of `Row`.

    Raises:
        VideoDecodeError: it cannot be decoded to its end.
    """
    if os.path.isdir(path) or path.lower().endswith(IMAGE_SUFFIXES):
        reader = PictureReader(path)
        height, width = reader.read([0])[0].shape[:2]
        rate, frames, codec, exact = reader.fps, reader.num_frames, "pictures", True
        for index in range(1, frames):
            if reader.read([index])[0].shape[:2] != (height, width):
                raise VideoDecodeError(f"pictures: number {index} is of another size than the first")
    else:
        times: list[float | None] = []
        width = height = 0
        with open_stream(path) as (container, stream):
            codec = stream.codec_context.name
            for frame in container.decode(stream):
                if not times:
                    width, height = (frame.width, frame.height)[:: 1 if frame.rotation % 180 == 0 else -1]
                times.append(frame.time)
            rate, frames = stream_rate(stream, times), len(times)
        if not frames:
            raise VideoDecodeError("pyav: the video stream has no frame")
        exact = jumps_are_exact(path)
    return {
        "frames": frames,
        "fps": str(rate),
        "seconds": round(float(frames / rate), 3),
        "width": width,
        "height": height,
        "codec": codec,
        "exact_jumps": exact,
    }


def copy_video(source: str, target: str, short_side: int, keyframe_every: int, crf: int) -> None:
    """Write a smaller copy that is quick to decode at any place, beside and renamed; upright, times kept.

    Raises:
        VideoDecodeError: the source cannot be decoded to its end; nothing is left behind.
    """
    import av

    os.makedirs(os.path.dirname(target), exist_ok=True)
    part = f"{target}.part"
    try:
        with open_stream(source) as (container, stream), av.open(part, "w", format="mp4") as output:
            encoder, last = None, -1
            for frame in container.decode(stream):
                if encoder is None:
                    width, height = _even_size(frame.width, frame.height, short_side)
                    turn = frame.rotation // 90 % 4
                    encoder = output.add_stream("libx264", rate=frame_rate(stream.average_rate, 0, None))
                    encoder.width, encoder.height = (width, height) if turn % 2 == 0 else (height, width)
                    encoder.pix_fmt, encoder.time_base = "yuv420p", stream.time_base
                    encoder.codec_context.time_base = stream.time_base
                    encoder.codec_context.max_b_frames = 0
                    encoder.codec_context.thread_count = 1
                    # without CABAC and loop filter a frame takes about half as long to decode
                    encoder.options = {
                        "preset": "fast",
                        "tune": "fastdecode",
                        "crf": str(crf),
                        "g": str(keyframe_every),
                        "keyint_min": str(keyframe_every),
                    }
                picture = _upright(frame, width, height, turn)
                step = 1 if frame.duration == 0 else frame.duration
                # Old AVIs give some frames no time, or that of the frame before.
                last = picture.pts = last + step if frame.pts is None or frame.pts <= last else frame.pts
                output.mux(encoder.encode(picture))
            if encoder is None:
                raise VideoDecodeError("pyav: the video stream has no frame")
            output.mux(encoder.encode())
        os.replace(part, target)
    finally:
        if os.path.exists(part):
            os.remove(part)


def _even_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Smaller sizes with the shorter side at ``short_side``; H.264 wants even numbers."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _upright(frame: Any, width: int, height: int, turn: int) -> Any:
    import av
    import numpy as np

    small = frame.reformat(width, height, format="yuv420p", interpolation="AREA")
    if turn:
        turned = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(np.rot90(small.to_ndarray(format="rgb24"), turn)), format="rgb24"
        )
        small = turned.reformat(format="yuv420p")
    small.time_base = frame.time_base
    small.pict_type = 0  # the source's key frames are not ours
    return small


def scan(
    manifest: VideoManifest, file: Path, workers: int, seconds: float, copies: Copies | None = None, name: str = "scan"
) -> list[Row]:
    """Look at every video of a manifest; rows in its order.

    Args:
        file: CSV of the rows; what it has already is not done again.
        workers: decoding processes at a time.
        seconds: time limit per video.
        copies: make copies too.
        name: beside the progress bar.
    """
    known = {row.path: row for row in read_rows(file)}
    if copies:
        _check_targets(manifest.paths, copies)
    rows: dict[str, Row] = {}
    waiting = []
    for path, label in zip(manifest.paths, manifest.labels.tolist(), strict=True):
        row = known.get(path)
        if row and row.label == label and _same_file(row) and _copied(row, copies):
            rows[path] = row
        else:
            waiting.append((path, label))
    write_rows(file, rows.values())
    with (
        file.open("a", encoding="utf-8", newline="") as lines,
        ThreadPoolExecutor(workers) as pool,  # each thread has a decoding process, which does the work
        progress(total=len(manifest), initial=len(rows), unit="video", desc=name) as bar,
    ):
        writer = csv.DictWriter(lines, _FIELDS)
        jobs = [pool.submit(_look, path, label, seconds, copies) for path, label in waiting]
        try:
            for job in as_completed(jobs):
                row = job.result()
                rows[row.path] = row
                writer.writerow(asdict(row))
                lines.flush()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    found = [rows[path] for path in manifest.paths]
    write_rows(file, found)
    return found


def _look(path: str, label: int, seconds: float, copies: Copies | None) -> Row:
    if not os.path.exists(containing_file(path)):
        return Row(path, label, "missing", reason="no such file")
    size, modified = size_and_mtime(path)
    row: dict[str, Any] = {"path": path, "label": label, "bytes": size, "modified": modified}
    try:
        found = decoding_process().run(seconds, f"{__name__}:inspect", path=path)
        if copies and found["codec"] != "pictures":
            target = copies.target(path)
            decoding_process().run(
                seconds,
                f"{__name__}:copy_video",
                source=path,
                target=str(target),
                short_side=copies.short_side,
                keyframe_every=copies.keyframe_every,
                crf=copies.crf,
            )
            found["copy"] = str(target)
    except VideoDecodeError as error:
        return Row(**row, status="broken", reason=str(error))
    return Row(**row, status="ok", **found)


def _same_file(row: Row) -> bool:
    try:
        return size_and_mtime(row.path) == (row.bytes, row.modified)
    except OSError:
        return row.status == "missing"


def _copied(row: Row, copies: Copies | None) -> bool:
    """Whether there is nothing left to copy."""
    if copies is None or row.status != "ok" or row.codec == "pictures":
        return True
    return row.copy == str(copies.target(row.path)) and os.path.exists(row.copy)


def _check_targets(paths: Sequence[str], copies: Copies) -> None:
    sources: dict[Path, str] = {}
    for path in paths:
        target = copies.target(path)
        if target in sources:
            raise DataError(f"{path} and {sources[target]} would have the same copy, {target}; rename one of them")
        sources[target] = path


_FIELDS = [entry.name for entry in fields(Row)]
_KINDS = {"int": int, "float": float, "str": str, "bool": "True".__eq__}


def read_rows(file: Path) -> list[Row]:
    """Rows of an earlier scan; a last line that was cut off is left out."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(complete, newline=""))
    if reader.fieldnames != _FIELDS:
        raise DataError(f"{file}: is no list of an earlier scan (columns {reader.fieldnames}); remove or rename it")
    return [
        Row(**{entry.name: _KINDS[entry.type](row[entry.name]) for entry in fields(Row)})
        for row in reader
        if None not in row.values()
    ]


def write_rows(file: Path, rows: Sequence[Row] | Iterator[Row]) -> None:
    """All rows, beside and renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.tmp")
    with beside.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, _FIELDS)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    os.replace(beside, file)
