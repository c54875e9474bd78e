"""Hashes of files."""

import hashlib

from data_pipelines.io import hashing
from data_pipelines.io.hashing import file_digest


def test_the_hash_is_that_of_the_whole_content(tmp_path, monkeypatch):
    """Checkpoints and predictions store this hash, so it must not change."""
    content = bytes(range(256)) * 10
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(hashing, "BLOCK_BYTES", 100)
    assert file_digest(tmp_path / "file") == hashlib.blake2b(content, digest_size=16).hexdigest()
