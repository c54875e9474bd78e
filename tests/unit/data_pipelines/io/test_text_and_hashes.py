"""Lines and hashes of files."""

import hashlib

import pytest

from data_pipelines.io import hashing
from data_pipelines.io.errors import DataError, first_line
from data_pipelines.io.hashing import file_digest
from data_pipelines.io.text_lines import numbered_lines


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffé 1\r\n\n  \nb 2".encode())
    assert list(numbered_lines(tmp_path / "list.txt")) == [(1, "é 1\n"), (4, "b 2")]


def test_lines_of_a_binary_file_are_an_error(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a 1\n\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list\.txt: "):
        list(numbered_lines(tmp_path / "list.txt"))


def test_the_hash_is_that_of_the_whole_content(tmp_path, monkeypatch):
    """Checkpoints and predictions store this hash, so it must not change."""
    content = bytes(range(256)) * 10
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(hashing, "BLOCK_BYTES", 100)
    assert file_digest(tmp_path / "file") == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_first_line_of_an_error():
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) < 1000
