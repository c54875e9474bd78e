"""Change files as faults of disks and networks, and attackers, do."""

from __future__ import annotations

import json
import tarfile
from pathlib import PurePath
from typing import Any

import numpy as np

# Extreme sizes and counts, and characters with a meaning in text formats
VALUES = (
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"99999999",
    b"9" * 5000,
    b"-1",
    b"\xe2\x80\xa8",
    b'"',
)
JSON_VALUES = (None, True, -1, 0, 1e300, float("inf"), 2**80, "", "9" * 5000, "\ud800", "\0", "..", [], {}, [[]])
CHECKSUM = slice(148, 156)  # of a header in a tar


def mutate(name: str, content: bytes, rng: np.random.Generator) -> bytes:
    """A changed version of a file; half of all JSON and tar files stay valid enough to be read further."""
    suffix = PurePath(name).suffix
    if rng.random() < 0.5:
        if suffix == ".json":
            return json.dumps(_with_other_value(json.loads(content), rng)).encode()
        if suffix == ".tar":
            return _with_valid_checksums(_mutate_bytes(content, rng))
    return _mutate_bytes(content, rng)


def _mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        size = len(data)
        if not size:
            break
        start = int(rng.integers(size))
        stop = min(size, start + int(2 ** rng.uniform(0, 10)))
        match rng.integers(7):
            case 0:
                data[start:stop] = rng.bytes(stop - start)
            case 1:
                data[start] ^= 1 << int(rng.integers(8))
            case 2:
                del data[start:]
            case 3:
                del data[start:stop]
            case 4:
                data[start:start] = data[start:stop]
            case 5:
                data[start:stop] = bytes(stop - start)
            case _:
                value = VALUES[int(rng.integers(len(VALUES)))]
                data[start : start + len(value)] = value
    return bytes(data)


def _with_other_value(value: Any, rng: np.random.Generator) -> Any:
    """The same JSON with one value of another type or of an extreme size."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        copy: Any = value.copy()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[int(rng.integers(len(keys)))]
        copy[key] = _with_other_value(value[key], rng)
        return copy
    return JSON_VALUES[int(rng.integers(len(JSON_VALUES)))]


def _with_valid_checksums(content: bytes) -> bytes:
    """The same tar, so that the numbers in its headers are used however they were changed."""
    data = bytearray(content)
    for start in range(0, len(data) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        header = data[start : start + tarfile.BLOCKSIZE]
        if header[257:262] == b"ustar":
            header[CHECKSUM] = b" " * 8
            header[CHECKSUM] = b"%06o\0 " % sum(header)
            data[start : start + tarfile.BLOCKSIZE] = header
    return bytes(data)
