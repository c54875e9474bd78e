"""Locks for what one process at a time may write: run directories, results of tests, prepared copies.

The lock is the kernel's (flock), which releases it when the holder's process ends, however it ends. The lock file names
the holder in JSON: host, process id and start. A shared file system may keep such locks per machine, or lose the
machine that holds one. There the heartbeat counts: a holder sets the file's modification time every few seconds, and
another machine takes over if it does not change for a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import full_disk_names
from data_pipelines.io.errors import DataError

try:
    import fcntl
except ImportError:  # Windows: heartbeats alone
    fcntl = None  # type: ignore[assignment]

HEARTBEAT_SECONDS = 5.0
LOST_SECONDS = 60.0  # without a heartbeat, after which the holder's machine counts as lost
INHERITED_SECONDS = 10.0  # in which a child that was forked just before its parent's end closes the parent's lock
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # another user's link could lead to any file of this one

_descriptors: set[int] = set()  # of locks that this process holds


class LockedError(DataError):
    """Another process holds the lock."""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock during a ``with`` block.

    The process ends if another one takes the lock over, which happens only after this one was suspended or cut off
    from the file system.

    Args:
        file: the lock file, which exists while the lock is held. Missing parent folders are created.

    Raises:
        LockedError: another process holds the lock.
        OSError: the file cannot be created.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, is_kernel_lock = _open_and_lock(file)
    _descriptors.add(descriptor)
    try:
        holder = _read(file)
        if holder and not (is_kernel_lock and holder.get("machine") == _machine()):
            _wait_for_heartbeat(file, holder)
        with full_disk_names(file):
            token = _write(descriptor)
        released = threading.Event()
        threading.Thread(target=_beat, args=(file, token, released), daemon=True).start()
        try:
            yield
        finally:
            released.set()
            if _read(file).get("token") == token:
                with contextlib.suppress(OSError):
                    file.unlink()
    finally:
        _descriptors.discard(descriptor)
        os.close(descriptor)


def _open_and_lock(file: Path) -> tuple[int, bool]:
    """Open and lock the file. Returns its descriptor, and False if the file system has no locks."""
    deadline = time.monotonic() + INHERITED_SECONDS
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o666)
        try:
            is_kernel_lock = _flock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            holder = _read(file)
            if time.monotonic() < deadline and _has_ended(holder):
                time.sleep(0.05)
                continue
            raise _in_use(file, holder) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(file), os.fstat(descriptor)):
                return descriptor, is_kernel_lock
        os.close(descriptor)  # the previous holder has deleted it


def _flock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _has_ended(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that does not exist any more."""
    if not holder or holder.get("machine") != _machine():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def _in_use(file: Path, holder: dict[str, Any]) -> LockedError:
    who = "another process"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')}, started {holder.get('started')}"
    return LockedError(f"{file.parent}: in use by {who} (lock file {file.name})")


def _wait_for_heartbeat(file: Path, holder: dict[str, Any]) -> None:
    """Return if the holder on another machine shows no sign of life.

    Raises:
        LockedError: it does.
    """
    print(
        f"{file}: held by process {holder.get('pid')} on {holder.get('host')}; "
        f"taking over unless it shows a sign of life within {LOST_SECONDS:.0f} s",
        file=sys.stderr,
    )
    first = _stamp(file)  # changes are observed, because the machines' clocks may differ
    deadline = time.monotonic() + LOST_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, LOST_SECONDS / 10))
        if _stamp(file) != first:
            raise _in_use(file, _read(file))


def _beat(file: Path, token: str, released: threading.Event) -> None:
    """Set the file's modification time until the lock is released."""
    while not released.wait(HEARTBEAT_SECONDS):
        holder = _read(file)
        if not holder:  # deleted by hand, or the file system cannot be reached
            continue
        if holder.get("token") != token and not released.is_set():
            print(
                f"error: {_in_use(file, holder)}, which has taken over from this process", file=sys.stderr, flush=True
            )
            os._exit(2)
        with contextlib.suppress(OSError):
            os.utime(file)


def _write(descriptor: int) -> str:
    """Name this process as the holder. Returns the token that identifies it."""
    token = secrets.token_hex(8)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    content = json.dumps({**holder, "machine": _machine(), "token": token}, indent=2) + "\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content.encode(), 0)
    os.fsync(descriptor)
    return token


def _read(file: Path) -> dict[str, Any]:
    """The holder that the file names, read from the file's server; empty if there is none."""
    try:
        descriptor = os.open(file, os.O_RDONLY | NO_FOLLOW)
        with os.fdopen(descriptor, encoding="utf-8") as lines:
            holder = json.loads(lines.read(10_000))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _stamp(file: Path) -> tuple[int, Any]:
    """Changes with every heartbeat and every holder."""
    token = _read(file).get("token")  # opening the file also refreshes what a network file system knows about it
    try:
        return os.stat(file).st_mtime_ns, token
    except OSError:
        return 0, token


def _machine() -> str:
    """Identifies the running kernel, which containers share."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _close_inherited() -> None:
    """Close the locks in a forked process: they must not outlive their holder in its children."""
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
