"""Decode in a child process that can be killed after a timeout.

Decoders hang and crash inside C code on corrupt files, where neither exceptions nor Python's signal handlers work. Each
thread that decodes (the main thread of each loader worker, for example) keeps one child. If a file makes the child hang
or crash, that child is killed and the next file gets a new one.

Requests and answers are lines of JSON over pipes. On Linux, frames are passed in shared memory; elsewhere they follow
the answer as raw bytes.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.io.errors import VideoDecodeError, decode_errors, first_line
from data_pipelines.io.processes import end_with_parent, python_command
from data_pipelines.video.backends import GuardedReader, SequentialReader
from data_pipelines.video.streams import seeking_is_exact

PIPE_BYTES = 2**20
KEPT_BYTES = 2**26  # of shared memory between two reads
START_TIMEOUT = 60.0  # seconds; the child imports NumPy first, which is slow on a busy disk


class SharedMemory:
    """An anonymous file that parent and child map.

    Args:
        descriptor: the file's descriptor, which both processes have.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def array(self, size: int) -> np.ndarray:
        """Return the first ``size`` bytes as a uint8 array."""
        if os.fstat(self.descriptor).st_size < size:
            os.ftruncate(self.descriptor, size)
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        return np.frombuffer(self._map, dtype=np.uint8, count=size)

    def release(self) -> None:
        """Return the memory of a large array to the system, in the other process as well."""
        if os.fstat(self.descriptor).st_size > KEPT_BYTES:
            self._map = None
            os.ftruncate(self.descriptor, 0)

    def __del__(self) -> None:
        os.close(self.descriptor)


# ----------------------------------------------------------------------------------------------------------------------
# Parent


class DecodingProcess:
    """A child process that decodes. Use `decoding_process` to get the current one.

    Raises:
        RuntimeError: the process does not start.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._memory = SharedMemory(os.memfd_create("frames")) if hasattr(os, "memfd_create") else None
        self._child = self._start()
        assert self._child.stdin is not None and self._child.stdout is not None
        self._requests, self._answers = self._child.stdin, self._child.stdout.fileno()
        with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux only; elsewhere reading is slower
            import fcntl

            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            self._read_line(time.monotonic() + START_TIMEOUT)  # the child's first answer: it is ready
        except (EOFError, TimeoutError):
            self.kill()
            raise RuntimeError(
                f"{sys.executable} cannot start a decoding process; timeout=0 decodes in the calling process"
            ) from None

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """Return the child's answer to ``request``.

        Args:
            timeout: seconds.

        Raises:
            VideoDecodeError: the child reports one, crashed, or did not answer in time and was killed, or this process
                has no memory for the frames.
            OSError: a file cannot be written.
            RuntimeError: any other exception in the child.
        """
        deadline = time.monotonic() + timeout
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            answer = json.loads(self._read_line(deadline))
            if "shape" in answer:
                answer["frames"] = self._read_frames(answer["shape"], deadline)
        except TimeoutError:
            self.kill()
            raise VideoDecodeError(f"no answer within {timeout:g} s; killed the decoding process") from None
        except (BrokenPipeError, EOFError):
            self.kill()
            code = self._child.returncode
            reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise VideoDecodeError(f"the decoding process crashed ({reason})") from None
        except (MemoryError, OSError) as error:
            self.kill()
            raise VideoDecodeError(f"cannot receive the frames ({first_line(error)})") from error
        for notice in answer.pop("notices", ()):
            warnings.warn(notice, stacklevel=2)
        if "os_error" in answer:
            raise OSError(*answer["os_error"])
        if "exception" in answer:
            raise RuntimeError(answer["exception"])
        if "error" in answer:
            raise VideoDecodeError(answer["error"])
        return answer

    def call(self, timeout: float, function: Callable[..., dict[str, Any] | None], **arguments: Any) -> dict[str, Any]:
        """Return ``function(**arguments)``, evaluated in the child; see `ask`.

        Args:
            function: a module-level function with JSON arguments that returns a JSON object or None.
        """
        name = f"{function.__module__}:{function.__name__}"
        return self.ask(timeout, action="call", function=name, arguments=arguments)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def is_usable(self) -> bool:
        """Whether the child is alive and was started by this process, not by one that this was forked from."""
        return self._owner == os.getpid() and self._child.poll() is None

    def kill(self) -> None:
        """End the child immediately."""
        self._child.kill()
        self._child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        shared = (self._memory.descriptor,) if self._memory else ()
        return subprocess.Popen(
            python_command(f"from {__name__} import serve; serve(*{shared})"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=shared,
        )

    def _read_frames(self, shape: list[int], deadline: float) -> np.ndarray:
        if self._memory:
            frames = self._memory.array(math.prod(shape)).reshape(shape).copy()
            self._memory.release()
            return frames
        frames = np.empty(shape, dtype=np.uint8)
        remaining = frames.reshape(-1).data
        while len(remaining):
            self._wait(deadline)
            count = os.readv(self._answers, [remaining])
            if not count:
                raise EOFError
            remaining = remaining[count:]
        return frames

    def _read_line(self, deadline: float) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):  # byte by byte: answers are short, and frames may follow
            self._wait(deadline)
            byte = os.read(self._answers, 1)
            if not byte:
                raise EOFError
            line += byte
        return bytes(line)

    def _wait(self, deadline: float) -> None:
        answers = select.poll()  # select() fails in a process with more than 1024 open files
        answers.register(self._answers, select.POLLIN)
        if not answers.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise TimeoutError


class RemoteReader:
    """A `data_pipelines.video.backends.Reader` in the child process.

    Args:
        backend: a name in ``backends.READERS``.
        path: a video file.
        timeout: seconds for opening, and for each read.
        max_pixels: see `data_pipelines.video.reader.open_video`.
    """

    def __init__(self, backend: str, path: str, timeout: float, max_pixels: int | None = None) -> None:
        self._backend, self._timeout = backend, timeout
        self._process = decoding_process()
        self._file = next(file_numbers)  # several files may be open at once
        answer = self._ask(action="open", backend=backend, path=from_root(path), max_pixels=max_pixels)
        self.num_frames, self.fps = answer["num_frames"], Fraction(*answer["fps"])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `data_pipelines.video.backends.Reader`."""
        return self._ask(action="read", indices=indices.tolist())["frames"]

    def close(self) -> None:
        """Release the file in the child."""
        if self._process.is_usable:
            self._ask(action="close")

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            return self._process.ask(self._timeout, file=self._file, **request)
        except VideoDecodeError as error:
            message = str(error)
            prefix = "" if message.startswith(self._backend) else f"{self._backend}: "
            raise VideoDecodeError(prefix + message) from None


def remote_seeking_is_exact(path: str, timeout: float, max_pixels: int | None = None) -> bool:
    """Evaluate `streams.seeking_is_exact` in the child; False for a file that makes it hang or crash."""
    try:
        request = {"action": "seeking_is_exact", "path": from_root(path), "max_pixels": max_pixels}
        return decoding_process().ask(timeout, **request)["is_exact"]
    except VideoDecodeError:
        return False


def from_root(path: str) -> str:
    """Return an absolute path, because this process may have changed its folder since the child started."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


_per_thread = threading.local()
file_numbers = itertools.count()


def decoding_process() -> DecodingProcess:
    """Return this thread's child process, which is started if necessary."""
    if not hasattr(_per_thread, "process") or not _per_thread.process.is_usable:
        _per_thread.process = DecodingProcess()
    return _per_thread.process


# ----------------------------------------------------------------------------------------------------------------------
# Child


def serve(descriptor: int | None = None) -> None:
    """Answer requests until the parent closes the pipe or ends.

    Args:
        descriptor: file for the frames, shared with the parent.
    """
    end_with_parent()
    memory = None if descriptor is None else SharedMemory(descriptor)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps the output of libraries out of the answers
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole process group; the parent handles them
    notices: list[str] = []
    warnings.showwarning = lambda message, category, *_, **__: notices.append(str(message))
    _send(answers, {})
    readers: dict[int, Any] = {}  # GuardedReader or SequentialReader
    for line in requests:
        frames: np.ndarray | None = None
        try:
            answer, frames = _answer(json.loads(line), readers)
            if frames is not None and memory:
                with decode_errors("shared memory"):
                    memory.array(frames.size)[:] = frames.reshape(-1)
                frames = None
        except VideoDecodeError as error:
            answer, frames = {"error": str(error)}, None
        except OSError as error:
            answer = {"os_error": [error.errno, error.strerror or first_line(error), error.filename]}
        except Exception as error:
            answer = {"exception": f"{type(error).__name__}: {error}"}
        if notices:  # standard error is not read; the parent repeats them
            answer["notices"], notices[:] = notices[:], []
        _send(answers, answer, frames)
        frames = None  # not kept until the next request


def _answer(request: dict[str, Any], readers: dict[int, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return the answer to a request, and the frames that belong to it."""
    match request["action"]:
        case "seeking_is_exact":
            return {"is_exact": seeking_is_exact(request["path"], request["max_pixels"])}, None
        case "open":
            reader = GuardedReader(request["backend"], request["path"], request["max_pixels"])
            readers[request["file"]] = reader
            return {"num_frames": reader.num_frames, "fps": reader.fps.as_integer_ratio()}, None
        case "open sequential":
            sequential = SequentialReader(request["path"], request["max_pixels"])
            readers[request["file"]] = sequential
            fps = sequential.fps and sequential.fps.as_integer_ratio()
            return {"fps": fps, "seconds": sequential.seconds}, None
        case "read":
            frames = np.ascontiguousarray(readers[request["file"]].read(np.array(request["indices"])))
            return {"shape": frames.shape}, frames
        case "read next":
            frames = readers[request["file"]].read(request["count"])
            return ({"shape": frames.shape}, frames) if len(frames) else ({}, None)
        case "call":
            module, _, name = request["function"].partition(":")
            return getattr(importlib.import_module(module), name)(**request["arguments"]) or {}, None
        case "close":
            readers.pop(request["file"]).close()
            return {}, None
    raise ValueError(f"action: found {request['action']!r}")


def _send(answers: BinaryIO, answer: dict[str, Any], frames: np.ndarray | None = None) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    if frames is not None:
        answers.write(frames.reshape(-1).data)
    answers.flush()
