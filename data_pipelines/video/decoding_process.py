"""A decoder in a process of its own, which a time limit can kill.

Decoders hang and crash inside C on damaged files, where no exception and no signal handler of Python's reaches them.
Every process that decodes (each worker of a loader) keeps one child; when a file defeats the child, the child dies and
the next file gets a new one. Requests and answers are lines of JSON over pipes; frames lie in memory that both share
(on Linux; elsewhere they follow as raw bytes).
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
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.io.errors import VideoDecodeError
from data_pipelines.video.backends import READERS, Reader, jumps_are_exact

PIPE_BYTES = 2**20
START_SECONDS = 60  # a child imports NumPy first, which a busy disk makes slow


class SharedMemory:
    """An anonymous file that parent and child map, as large as the largest answer so far.

    Args:
        file: its descriptor, which both have.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._map: mmap.mmap | None = None

    def array(self, size: int) -> np.ndarray:
        """Its first ``size`` bytes, uint8."""
        if os.fstat(self.file).st_size < size:
            os.ftruncate(self.file, size)
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.file, os.fstat(self.file).st_size)
        return np.frombuffer(self._map, dtype=np.uint8, count=size)

    def __del__(self) -> None:
        os.close(self.file)


class DecodingProcess:
    """A child that decodes; `decoding_process` gives the current one.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._memory = SharedMemory(os.memfd_create("frames")) if hasattr(os, "memfd_create") else None
        shared = (self._memory.file,) if self._memory else ()
        program = f"from data_pipelines.video.decoding_process import serve; serve(*{shared})"
        self._child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=shared,
        )
        self._answers = self._child.stdout.fileno()
        with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux; elsewhere it is only slower
            import fcntl

            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            self._line(time.monotonic() + START_SECONDS)  # it is up
        except (EOFError, TimeoutError):
            self.kill()
            raise RuntimeError(
                f"{sys.executable} cannot start a decoding process; data.decode_seconds=0 decodes without one"
            ) from None

    def ask(self, seconds: float, **request: Any) -> dict[str, Any]:
        """The child's answer within ``seconds``.

        Raises:
            VideoDecodeError: the child says so, did not answer in time (it is killed), or crashed.
        """
        deadline = time.monotonic() + seconds
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
            answer = json.loads(self._line(deadline))
            if "shape" in answer:
                answer["frames"] = self._frames(answer["shape"], deadline)
        except TimeoutError:
            self.kill()
            raise VideoDecodeError(f"gave nothing within {seconds:g} s and was stopped") from None
        except (BrokenPipeError, EOFError):
            self.kill()
            code = self._child.returncode
            how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            raise VideoDecodeError(f"ended the decoding process {how}") from None
        if "bug" in answer:
            raise RuntimeError(answer["bug"])
        if "error" in answer:
            raise VideoDecodeError(answer["error"])
        return answer

    def run(self, seconds: float, job: str, **arguments: Any) -> dict[str, Any]:
        """What a function of this package, "module:name", returns in the child; see `ask`."""
        return self.ask(seconds, call="job", job=job, arguments=arguments)

    @property
    def usable(self) -> bool:
        """Whether it belongs to this process (not to the one this was forked from) and still lives."""
        return self.owner == os.getpid() and self._child.poll() is None

    def kill(self) -> None:
        """End the child at once."""
        self._child.kill()
        self._child.wait()

    def _frames(self, shape: list[int], deadline: float) -> np.ndarray:
        if self._memory:
            return self._memory.array(math.prod(shape)).reshape(shape).copy()
        frames = np.empty(shape, dtype=np.uint8)
        self._fill(memoryview(frames.reshape(-1)), deadline)
        return frames

    def _line(self, deadline: float) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):  # answers are short, and nothing follows before the next request but frames
            self._wait(deadline)
            byte = os.read(self._answers, 1)
            if not byte:
                raise EOFError
            line += byte
        return bytes(line)

    def _fill(self, into: memoryview, deadline: float) -> None:
        while len(into):
            self._wait(deadline)
            count = os.readv(self._answers, [into])
            if not count:
                raise EOFError
            into = into[count:]

    def _wait(self, deadline: float) -> None:
        ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError


class RemoteReader:
    """A `data_pipelines.video.backends.Reader` in the child.

    Args:
        backend: a name in ``backends.READERS``.
        path: a video file.
        seconds: time limit of opening, and of each read.
    """

    def __init__(self, backend: str, path: str, seconds: float) -> None:
        self._backend, self._seconds = backend, seconds
        self._process = decoding_process()
        self._file = next(_numbers)  # several may be open at once
        answer = self._ask(call="open", backend=backend, path=path)
        self.num_frames, self.fps = answer["num_frames"], Fraction(*answer["fps"])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `data_pipelines.video.backends.Reader`."""
        return self._ask(call="read", indices=indices.tolist())["frames"]

    def close(self) -> None:
        """Let the child release the file."""
        if self._process.usable:
            self._ask(call="close")

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            return self._process.ask(self._seconds, file=self._file, **request)
        except VideoDecodeError as error:
            text = str(error)
            raise VideoDecodeError(text if text.startswith(self._backend) else f"{self._backend}: {text}") from None


def remote_jumps_are_exact(path: str, seconds: float) -> bool:
    """`backends.jumps_are_exact` in the child; a file that defeats even this look at it has no exact jumps."""
    try:
        return decoding_process().ask(seconds, call="jumps_are_exact", path=path)["exact"]
    except VideoDecodeError:
        return False


_mine = threading.local()
_numbers = itertools.count()


def decoding_process() -> DecodingProcess:
    """The child of this thread of this process, started when first needed."""
    if not hasattr(_mine, "process") or not _mine.process.usable:
        _mine.process = DecodingProcess()
    return _mine.process


# The child's side


def serve(shared: int | None = None) -> None:
    """Answer requests until the parent closes the pipe or dies; frames go into the file ``shared``."""
    _die_with_parent()
    memory = None if shared is None else SharedMemory(shared)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group, and the parent's business
    _send(answers, {})
    readers: dict[int, Reader] = {}
    for line in requests:
        request, frames = json.loads(line), None
        try:
            answer: dict[str, Any] = {}
            match request["call"]:
                case "jumps_are_exact":
                    answer = {"exact": jumps_are_exact(request["path"])}
                case "open":
                    reader = readers[request["file"]] = READERS[request["backend"]](request["path"])
                    answer = {"num_frames": reader.num_frames, "fps": reader.fps.as_integer_ratio()}
                case "read":
                    frames = np.ascontiguousarray(readers[request["file"]].read(np.array(request["indices"])))
                    answer = {"shape": frames.shape}
                case "job":
                    module, _, name = request["job"].partition(":")
                    answer = getattr(importlib.import_module(module), name)(**request["arguments"]) or {}
                case "close":
                    readers.pop(request["file"]).close()
        except VideoDecodeError as error:
            answer = {"error": str(error)}
        except Exception as error:
            answer = {"bug": f"{type(error).__name__}: {error}"}
        if frames is not None and memory:
            memory.array(frames.size)[:] = frames.reshape(-1)
            frames = None
        _send(answers, answer, frames)


def _send(answers: BinaryIO, answer: dict[str, Any], frames: np.ndarray | None = None) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    if frames is not None:
        answers.write(frames.reshape(-1).data)
    answers.flush()


def _die_with_parent() -> None:
    """Also when the parent is killed while this hangs in C (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
