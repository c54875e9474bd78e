"""Check shared memory, and the disks that a run reads and writes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lookupvivit.cli.doctor.report import Finding, fail, ok, warn
from lookupvivit.config import DataConfig

SHARED_MEMORY = Path("/dev/shm")
STALE_FILES = "deepspeed_allreduce_buffer_*"  # DeepSpeed's buffers; a killed run leaves them behind
BATCH_BYTES = 8 * 32 * 224 * 224 * 3  # 8 clips of the Kinetics configurations, uint8
PREFETCHED_BATCHES = 2  # per loader process
CHUNK = 4 * 2**20  # bytes per read or write
WRITE_BYTES, READ_BYTES = 128 * 2**20, 512 * 2**20  # limits of each measurement
SECONDS = 5.0  # time limit of each measurement
SLOW_WRITE, SLOW_READ = 20.0, 50.0  # MB/s
SLOW_FILES = 50.0  # files per second
LOW_SPACE = 10.0  # GB


def check_shared_memory(folder: Path, total: float, free: float, ranks: int) -> Finding:
    """Compare shared memory (bytes) with what loader processes keep there, and look for files of killed runs."""
    workers, per_worker = DataConfig.default("workers"), PREFETCHED_BATCHES * BATCH_BYTES
    required = ranks * workers * per_worker
    found = f"{free / 1e9:.2f} of {total / 1e9:.2f} GB free in {folder}"
    need = f"{workers} workers x {ranks} with 8 Kinetics clips per batch need {required / 1e9:.2f}"
    stale = stale_files(folder)
    stale_gb = sum(file.stat().st_size for file in stale) / 1e9
    remains = f"; {len(stale)} unused files {STALE_FILES} hold {stale_gb:.2f} GB" if stale else ""
    clear = f"find {folder} -maxdepth 1 -name '{STALE_FILES}' -mmin +10 -delete  (while no DeepSpeed run is starting)"
    facts = {
        "total_gb": round(total / 1e9, 3),
        "free_gb": round(free / 1e9, 3),
        "required_gb": round(required / 1e9, 3),
        "stale_files": len(stale),
        "stale_gb": round(stale_gb, 3),
    }
    if free < required:
        advice = f"{clear}; " if stale else ""
        advice += "start the container with --shm-size=8g or --ipc=host, or set fewer data.workers (0 needs none)"
        return (fail if free < per_worker else warn)(f"{found}; {need}{remains}", advice, **facts)
    if stale:
        return warn(found + remains, clear, **facts)
    return ok(f"{found}; {need}", **facts)


def stale_files(folder: Path) -> list[Path]:
    """DeepSpeed's buffers in ``folder`` that no process has mapped, as far as this user's permissions show."""
    files = sorted(folder.glob(STALE_FILES))
    if not files:
        return []
    maps = "\n".join(map(_read_if_permitted, Path("/proc").glob("[0-9]*/maps")))
    return [file for file in files if str(file) not in maps]


def _read_if_permitted(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # another user's process, or one that has ended
        return ""


def check_output_disk(folder: Path) -> Finding:
    """Measure writing and reading a temporary file in ``folder``, or in its closest parent that exists."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    advice = "choose another output_dir (and --output here)"
    if not existing.is_dir():
        return fail(f"{existing} is not a folder", advice)
    space_gb = shutil.disk_usage(existing).free / 1e9
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".doctor_") as file:
            write_speed, size = _measure_writing(file.fileno())
            read_speed = _measure_reading(file.fileno())
    except OSError as error:
        return fail(f"{existing}: cannot be written ({error.strerror})", advice)
    found = (
        f"{existing}: writes {write_speed:.0f} MB/s (fsync included), reads {read_speed:.0f} MB/s, "
        f"{space_gb:.0f} GB free"
    )
    facts = {
        "write_mb_s": round(write_speed, 1),
        "read_mb_s": round(read_speed, 1),
        "free_gb": round(space_gb, 1),
        "bytes": size,
    }
    if space_gb < LOW_SPACE:
        return warn(found, "a checkpoint of a B model takes 2 GB: free space, or lower log.keep_checkpoints", **facts)
    if write_speed < SLOW_WRITE:
        advice = "checkpoints will take minutes: raise log.checkpoint_every_epochs or use another disk"
        return warn(found, advice, **facts)
    return ok(found, **facts)


def _measure_writing(file: int) -> tuple[float, int]:
    """Write random bytes, which no file system compresses. Returns MB/s including fsync, and bytes."""
    block, written, start = os.urandom(CHUNK), 0, time.perf_counter()
    while written < WRITE_BYTES and time.perf_counter() - start < SECONDS:
        written += os.write(file, block)
    os.fsync(file)
    return written / 1e6 / (time.perf_counter() - start), written


def _measure_reading(file: int) -> float:
    """Read a file from its start, bypassing the page cache. Returns MB/s."""
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(file, 0, os.SEEK_SET)
    start = time.perf_counter()
    size = sum(map(len, _chunks(file)))
    return size / 1e6 / (time.perf_counter() - start)


def _chunks(file: int) -> Iterator[bytes]:
    while chunk := os.read(file, CHUNK):
        yield chunk


def check_data_disk(folder: Path) -> Finding:
    """Measure reading whole files below ``folder`` one after another."""
    num_files = size = 0
    start = time.perf_counter()

    def is_done() -> bool:
        return size >= READ_BYTES or time.perf_counter() - start > SECONDS

    for path in _files_below(folder):
        if is_done():
            break
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            return fail(f"{path}: cannot be read ({error.strerror})", "correct its owner or its permissions")
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # measure the disk, not the page cache
            for chunk in _chunks(file):
                size += len(chunk)
                if is_done():
                    break
        finally:
            os.close(file)
        num_files += 1
    elapsed = time.perf_counter() - start
    if not num_files:
        return fail(f"{folder}: found no file", "choose the folder of the videos, as data.root")
    speed, rate = size / 1e6 / elapsed, num_files / elapsed
    found = f"{folder}: {speed:.0f} MB/s, {rate:.0f} files/s (measured on {num_files} files, {size / 1e6:.0f} MB)"
    facts = {"read_mb_s": round(speed, 1), "files_s": round(rate, 1), "files": num_files, "bytes": size}
    if speed < SLOW_READ and rate < SLOW_FILES:
        return warn(found, "copy the data to a local disk; tools/prepare_dataset.py --copies shrinks it", **facts)
    return ok(found, **facts)


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(folder):
        subfolders.sort()
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))
