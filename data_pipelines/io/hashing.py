"""Content hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK_BYTES = 2**24


def file_digest(file: Path) -> str:
    """Return the 128-bit BLAKE2b hash of a file's content, as 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as content:
        while block := content.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
