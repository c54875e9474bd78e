"""Shared memory, and the disks that a run reads and writes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lookupvivit.cli.doctor.report import Finding, fail, ok, warn
from lookupvivit.config import DataConfig

SHARED = Path("/dev/shm")
STALE = "deepspeed_allreduce_buffer_*"
BATCH_BYTES = 8 * 32 * 224 * 224 * 3  # uint8, 8 clips of the Kinetics configurations
AHEAD = 2  # batches that each loading process keeps ready
CHUNK = 4 * 2**20
WRITTEN, READ = 128 * 2**20, 512 * 2**20  # bytes at most
SECONDS = 5.0  # of each measurement at most
SLOW_WRITE, SLOW_READ = 20.0, 50.0  # MB/s
FEW_FILES = 50.0  # a second
LITTLE_SPACE = 10.0  # GB


def shared_memory(folder: Path, total: float, free: float, ranks: int) -> Finding:
    """Its size and free space (bytes) against what loading processes keep there, and what killed programs left."""
    per_worker = AHEAD * BATCH_BYTES
    workers = DataConfig.default("workers")
    wanted = ranks * workers * per_worker
    found = f"{free / 1e9:.2f} of {total / 1e9:.2f} GB free in {folder}"
    need = f"{workers} workers x {ranks} with 8 Kinetics clips a batch take {wanted / 1e9:.2f}"
    facts = {"total_gb": round(total / 1e9, 3), "free_gb": round(free / 1e9, 3), "wanted_gb": round(wanted / 1e9, 3)}
    stale = unmapped(folder)
    size = sum(file.stat().st_size for file in stale) / 1e9
    facts |= {"stale_files": len(stale), "stale_gb": round(size, 3)}
    left = f"; {len(stale)} {STALE} that no process uses hold {size:.2f} GB" if stale else ""
    clear = f"find {folder} -maxdepth 1 -name '{STALE}' -mmin +10 -delete  (while no DeepSpeed run starts)"
    if free < wanted:
        advice = f"{clear}; " if stale else ""
        advice += "start the container with --shm-size=8g or --ipc=host, or set fewer data.workers (0 needs none)"
        return (fail if free < per_worker else warn)(f"{found}; {need}{left}", advice, **facts)
    if stale:
        return warn(found + left, clear, **facts)
    return ok(f"{found}; {need}", **facts)


def unmapped(folder: Path) -> list[Path]:
    """DeepSpeed's buffers in ``folder`` that no process (as far as this user may look) has mapped."""
    found = sorted(folder.glob(STALE))
    if not found:
        return []
    maps = "\n".join(_text(file) for file in Path("/proc").glob("[0-9]*/maps"))
    return [file for file in found if str(file) not in maps]


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # another user's, or it ended
        return ""


def output_disk(folder: Path) -> Finding:
    """Writes and reads back a temporary file in ``folder``, or in what exists of its path."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    advice = "give another output_dir (and --output here)"
    if not place.is_dir():
        return fail(f"{place} is no folder", advice)
    space = shutil.disk_usage(place).free / 1e9
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor_") as file:
            writing, written = _write(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or memory would be measured
            start = time.perf_counter()
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            read = sum(len(part) for part in _parts(file.fileno()))
            reading = read / 1e6 / (time.perf_counter() - start)
    except OSError as error:
        return fail(f"{place}: cannot be written ({error.strerror})", advice)
    found = f"{place}: writes {writing:.0f} MB/s (fsync included), reads {reading:.0f} MB/s, {space:.0f} GB free"
    facts = {"write_mb_s": round(writing, 1), "read_mb_s": round(reading, 1), "free_gb": round(space, 1)}
    facts["bytes"] = written
    if space < LITTLE_SPACE:
        return warn(found, "a checkpoint of a B model takes 2 GB; make space, or lower log.keep_checkpoints", **facts)
    if writing < SLOW_WRITE:
        return warn(
            found, "checkpoints will take minutes: raise log.checkpoint_every_epochs or take another disk", **facts
        )
    return ok(found, **facts)


def _write(file: int) -> tuple[float, int]:
    """(MB/s with the fsync, bytes) of random bytes, which no file system compresses."""
    block, written, start = os.urandom(CHUNK), 0, time.perf_counter()
    while written < WRITTEN and time.perf_counter() - start < SECONDS:
        written += os.write(file, block)
    os.fsync(file)
    return written / 1e6 / (time.perf_counter() - start), written


def _parts(file: int) -> Iterator[bytes]:
    while part := os.read(file, CHUNK):
        yield part


def data_disk(folder: Path) -> Finding:
    """Reads files below ``folder`` one after the other, whole, as far as time allows."""
    count = size = 0
    start = time.perf_counter()
    for path in _files(folder):
        if size >= READ or time.perf_counter() - start > SECONDS:
            break
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            return fail(f"{path}: cannot be read ({error.strerror})", "correct its owner or mode")
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            for part in _parts(file):
                size += len(part)
                if size >= READ or time.perf_counter() - start > SECONDS:
                    break
        finally:
            os.close(file)
        count += 1
    spent = time.perf_counter() - start
    if not count:
        return fail(f"{folder}: no file below it", "give the folder of the videos, as data.root")
    speed, rate = size / 1e6 / spent, count / spent
    found = f"{folder}: {speed:.0f} MB/s, {rate:.0f} files/s (of {count} files, {size / 1e6:.0f} MB)"
    facts = {"read_mb_s": round(speed, 1), "files_s": round(rate, 1), "files": count, "bytes": size}
    if speed < SLOW_READ and rate < FEW_FILES:
        return warn(found, "copy the data to a local disk; tools/prepare_dataset.py --copies makes it smaller", **facts)
    return ok(found, **facts)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))
