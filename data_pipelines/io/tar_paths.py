"""A picture inside a tar as a path of its own: ``train-000003.tar@1536+110234/n01440764/n01440764_10026.jpg``.

That is the tar, the place and size of the picture's bytes in it, and the picture's name. It is opened and told like any
other path, from any process, without anything that was read before.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_PATH = re.compile(r"(.+\.tar)@(\d+)\+(\d+)/(.+)", re.DOTALL)


class Member(NamedTuple):
    """What such a path says: ``shard`` is the tar's own path, ``offset`` and ``size`` count bytes."""

    shard: str
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.shard}@{self.offset}+{self.size}/{self.name}"

    def read(self) -> bytes:
        """Its bytes; OSError where the tar cannot be read or ends before."""
        with open(self.shard, "rb", buffering=0) as file:
            content = os.pread(file.fileno(), self.size, self.offset)
        if len(content) < self.size:
            raise OSError(f"the shard ends after {len(content)} of {self.size} bytes")
        return content


def member_of(path: str) -> Member | None:
    """The member that a path means; None of an ordinary path."""
    found = _PATH.fullmatch(path) if ".tar@" in path else None
    return Member(found[1], int(found[2]), int(found[3]), found[4]) if found else None


def file_of(path: str) -> str:
    """The file that holds what a path means: the tar of a member, else the path itself."""
    member = member_of(path)
    return path if member is None else member.shard


def size_and_time(path: str) -> tuple[int, int]:
    """Bytes of what a path means, and when its file last changed (ns); OSError where there is none."""
    facts, member = os.stat(file_of(path)), member_of(path)
    return facts.st_size if member is None else member.size, facts.st_mtime_ns
