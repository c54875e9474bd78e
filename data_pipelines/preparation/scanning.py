"""Scan a collection once: which videos can be decoded, and their properties. Optionally write copies on the way.

Every video is handled in a decoding process (`data_pipelines.video.decoding_process`), so that a corrupt one cannot
stop the scan. The result is a CSV file with one row per video, which grows during the scan. An interrupted scan resumes
from it; a video that changed since is scanned again.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.atomic import atomic_write
from data_pipelines.io.errors import DataError, VideoDecodeError, decode_errors
from data_pipelines.io.listing import is_image
from data_pipelines.io.progress import progress
from data_pipelines.io.tar_paths import containing_file, size_and_mtime
from data_pipelines.io.text import ENCODING
from data_pipelines.preparation.copies import CopySettings, copy_video
from data_pipelines.video.decoding_process import decoding_process
from data_pipelines.video.image_reader import ImageReader
from data_pipelines.video.orientation import orientation_of
from data_pipelines.video.streams import open_stream, seeking_is_exact, stream_rate, to_rgb

IMAGES = "images"  # codec of images and folders of images


@dataclass(frozen=True)
class VideoRecord:
    """One video of a collection: a row of the CSV file, whose columns have the names of the attributes.

    Attributes:
        path: as in the manifest.
        label: class id, or -1 if a video may have several classes.
        status: "ok", "failed" (cannot be decoded) or "missing".
        frames: number of frames.
        fps: average frame rate, a fraction such as 30000/1001.
        seconds: duration.
        width, height: pixels as shown, after rotation.
        bytes, modified: size of the file, and its modification time (ns).
        codec: FFmpeg's name, or "images".
        exact_jumps: whether decoding may begin at any key frame; otherwise every clip is decoded from the first frame.
        reason: why the status is not "ok".
        copy: path of the copy, if one was written.
        encoding: how the copy was encoded, `CopySettings.encoding`; "" in files of version 0.1.
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
    encoding: str = ""


def scan(
    manifest: VideoManifest,
    file: Path,
    workers: int,
    timeout: float,
    copies: CopySettings | None = None,
    description: str = "scan",
    max_pixels: int | None = None,
) -> list[VideoRecord]:
    """Inspect every video of a manifest and return the records in its order.

    Args:
        file: CSV file of the records. Videos that it already describes are not scanned again, unless they failed.
        workers: number of decoding processes.
        timeout: seconds per video.
        copies: how to write copies, if at all.
        description: label of the progress bar.
        max_pixels: see `data_pipelines.video.reader.open_video`.

    Raises:
        DataError: ``file`` is not the result of a scan, or two videos would have the same copy.
    """
    if copies:
        _require_distinct_targets(manifest.paths, copies)
    records = _reusable_records(manifest, file, copies)
    labels = zip(manifest.paths, manifest.only_labels.tolist(), strict=True)
    remaining = [(path, label) for path, label in labels if path not in records]
    write_records(file, records.values())
    pool = ThreadPoolExecutor(workers)  # each thread has a decoding process, which does the work
    with (
        _open_csv(file, "a") as lines,
        progress(total=len(manifest), initial=len(records), unit=manifest.unit, desc=description) as bar,
    ):
        writer = csv.DictWriter(lines, COLUMNS)
        jobs = [pool.submit(_scan_video, path, label, timeout, copies, max_pixels) for path, label in remaining]
        try:
            for job in as_completed(jobs):
                record = job.result()
                records[record.path] = record
                writer.writerow(asdict(record))
                lines.flush()
                bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error, a video may still take its time limit
    in_order = [records[path] for path in manifest.paths]
    write_records(file, in_order)
    return in_order


def _reusable_records(manifest: VideoManifest, file: Path, copies: CopySettings | None) -> dict[str, VideoRecord]:
    """Return the records of an earlier scan that still hold, by path."""
    earlier = {record.path: record for record in read_records(file)}
    reusable = {}
    for path, label in zip(manifest.paths, manifest.only_labels.tolist(), strict=True):
        record = earlier.get(path)
        if record and record.status != "failed" and record.label == label and _is_unchanged(record):
            if not _is_copied(record, copies):
                continue
            reusable[path] = record
    return reusable


def _scan_video(
    path: str, label: int, timeout: float, copies: CopySettings | None, max_pixels: int | None
) -> VideoRecord:
    """Inspect and copy one video in this thread's decoding process."""
    if not os.path.exists(containing_file(path)):
        return VideoRecord(path, label, "missing", reason="no such file")
    size, modified = size_and_mtime(path)
    try:
        found = decoding_process().call(timeout, inspect_video, path=path, max_pixels=max_pixels)
        if copies and found["codec"] != IMAGES:
            found |= {"copy": str(copies.target(path)), "encoding": copies.encoding}
            decoding_process().call(
                timeout,
                copy_video,
                source=path,
                target=found["copy"],
                short_side=copies.short_side,
                keyframe_every=copies.keyframe_every,
                crf=copies.crf,
                max_pixels=max_pixels,
            )
    except VideoDecodeError as error:
        return VideoRecord(path, label, "failed", bytes=size, modified=modified, reason=str(error))
    return VideoRecord(path, label, "ok", bytes=size, modified=modified, **found)


def _is_unchanged(record: VideoRecord) -> bool:
    try:
        return size_and_mtime(record.path) == (record.bytes, record.modified)
    except OSError:
        return record.status == "missing"


def _is_copied(record: VideoRecord, copies: CopySettings | None) -> bool:
    """Whether the copy exists with the same encoding, or none is needed."""
    if copies is None or record.status != "ok" or record.codec == IMAGES:
        return True
    if record.encoding not in ("", copies.encoding):
        return False
    return record.copy == str(copies.target(record.path)) and os.path.exists(record.copy)


def _require_distinct_targets(paths: Iterable[str], copies: CopySettings) -> None:
    sources: dict[Path, str] = {}
    for path in paths:
        target = copies.target(path)
        if target in sources:
            raise DataError(f"{path}: has the same copy, {target}, as {sources[target]}; rename one of them")
        sources[target] = path


# ----------------------------------------------------------------------------------------------------------------------
# One video


def inspect_video(path: str, max_pixels: int | None = None) -> dict[str, Any]:
    """Decode a whole video and return its properties: fields of `VideoRecord`.

    Raises:
        VideoDecodeError: the video cannot be decoded to its end.
    """
    if os.path.isdir(path) or is_image(path):
        with decode_errors("images"):
            return _inspect_images(path, max_pixels)
    with decode_errors("pyav"):
        return _inspect_stream(path, max_pixels)


def _inspect_images(path: str, max_pixels: int | None) -> dict[str, Any]:
    reader = ImageReader(path, max_pixels)
    shapes = [reader.read(np.array([index])).shape[1:3] for index in range(reader.num_frames)]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise VideoDecodeError(
                f"images: found {shape} (height, width) at index {index}, expected {shapes[0]} as at index 0"
            )
    height, width = shapes[0]
    return {
        "frames": len(shapes),
        "fps": str(reader.fps),
        "seconds": round(float(len(shapes) / reader.fps), 3),
        "width": width,
        "height": height,
        "codec": IMAGES,
        "exact_jumps": True,
    }


def _inspect_stream(path: str, max_pixels: int | None) -> dict[str, Any]:
    times: list[float | None] = []
    kinds: set[tuple[str, int, int]] = set()
    width = height = 0
    with open_stream(path, max_pixels) as opened:
        codec = opened.stream.codec_context.name
        for frame in opened.frames():
            if not times:
                width, height = orientation_of(frame, path).size(frame.width, frame.height)
            kind = (frame.format.name, frame.width, frame.height)
            if kind not in kinds:  # not every kind of frame that FFmpeg decodes can be converted
                to_rgb(frame, frame.width, frame.height)
                kinds.add(kind)
            times.append(frame.time)
        rate = stream_rate(opened.stream, times)
    if not times:
        raise VideoDecodeError("pyav: found no frame in the video stream")
    return {
        "frames": len(times),
        "fps": str(rate),
        "seconds": round(float(len(times) / rate), 3),
        "width": width,
        "height": height,
        "codec": codec,
        "exact_jumps": seeking_is_exact(path, max_pixels),
    }


# ----------------------------------------------------------------------------------------------------------------------
# CSV files

COLUMNS = [field.name for field in fields(VideoRecord)]
COLUMNS_OF_VERSION_0_1 = COLUMNS[:-1]  # without the encoding
_PARSERS: dict[Any, Any] = {"int": int, "float": float, "str": str, "bool": "True".__eq__}
_VALUES_OF_VERSION_0_1 = {("status", "broken"): "failed", ("codec", "pictures"): IMAGES}


def read_records(file: Path) -> list[VideoRecord]:
    """Return the records of an earlier scan, none if ``file`` does not exist. An incomplete last line is ignored.

    Raises:
        DataError: ``file`` has other columns.
    """
    if not file.exists():
        return []
    text = file.read_bytes().decode(*ENCODING)
    complete_lines = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(complete_lines, newline=""))
    if reader.fieldnames not in (COLUMNS, COLUMNS_OF_VERSION_0_1):
        raise DataError(
            f"{file}: found columns {reader.fieldnames}, expected those of an earlier scan; remove or rename the file"
        )
    return [_parse_row(row) for row in reader if None not in row.values()]


def _parse_row(row: dict[str, str]) -> VideoRecord:
    values = {name: _VALUES_OF_VERSION_0_1.get((name, text), text) for name, text in row.items()}
    return VideoRecord(
        **{
            field.name: _PARSERS[field.type](values[field.name])
            for field in fields(VideoRecord)
            if field.name in values
        }
    )


def write_records(file: Path, records: Iterable[VideoRecord]) -> None:
    """Write a CSV file atomically."""
    with (
        atomic_write(file) as temporary,
        temporary.open("w", encoding=ENCODING[0], errors=ENCODING[1], newline="") as lines,
    ):
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(record) for record in records)


def _open_csv(file: Path, mode: str) -> TextIO:
    encoding, errors = ENCODING
    return cast(TextIO, file.open(mode, encoding=encoding, errors=errors, newline=""))
