"""Files that are small but ask for much: one error each, in bounded time and memory."""

import json
import os

import numpy as np
import pytest

from data_pipelines.io.csv_files import read_csv
from data_pipelines.io.errors import DataError
from data_pipelines.io.json_files import parse_json, read_json
from data_pipelines.io.npz_files import READ_ERRORS, open_npz
from data_pipelines.io.text import MAX_LINE, numbered_lines


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "{", '"\\ud8'])
def test_json_that_cannot_be_parsed(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: invalid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"^entry 3: invalid JSON"):
        parse_json(content, "entry 3")


def test_a_large_json_file_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(2**40)  # sparse: takes no space, and reading it would fill the memory
    with pytest.raises(DataError, match=r"a\.json: found 1099511627776 bytes"):
        read_json(tmp_path / "a.json")


def test_pipes_and_devices_are_not_read(tmp_path):
    file = tmp_path / "a"
    file.symlink_to(os.devnull)  # ends at once, unlike /dev/zero
    for read in (read_json, lambda file: list(numbered_lines(file)), lambda file: read_csv(file, ["label"])):
        with pytest.raises(DataError, match="a: found a pipe or a device, expected a regular file"):
            list(read(file))


def test_a_large_line_is_not_read(tmp_path):
    with open(tmp_path / "a.txt", "wb") as file:
        file.write(b"x" * 2 * MAX_LINE)
        file.truncate(2**40)
    with pytest.raises(DataError, match=r"a\.txt:1: found more than"):
        list(numbered_lines(tmp_path / "a.txt"))


def test_a_large_csv_field_is_not_read(tmp_path):
    with open(tmp_path / "a.csv", "wb") as file:
        file.write(b"label\n" + b"x" * 2**20)
        file.truncate(2**40)
    with pytest.raises(DataError, match=r"a\.csv:2: |a\.csv:1: "):
        list(read_csv(tmp_path / "a.csv", ["label"]))


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_not_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", logits=np.zeros(2**29, np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 2**20
    with pytest.raises(ValueError, match="found 5368"), open_npz(tmp_path / "a.npz") as arrays:
        arrays["logits"]


def test_archives_of_logits_are_read(tmp_path):
    logits = np.random.default_rng(0).standard_normal((50, 20))
    np.savez_compressed(tmp_path / "a.npz", logits=logits)
    with open_npz(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["logits"], logits)
    (tmp_path / "a.json").write_text(json.dumps({"é": [1]}), encoding="utf-8")
    assert read_json(tmp_path / "a.json", dict) == {"é": [1]}


@pytest.mark.parametrize(("offset", "value"), [(6, 0x21), (4, 0x49)], ids=["compressed patched data", "version 7.3"])
def test_features_of_zip_that_python_lacks_are_read_errors(tmp_path, offset, value):
    np.savez(tmp_path / "a.npz", logits=np.zeros(3))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for header, start in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        content[content.index(header) + start + offset] = value
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(READ_ERRORS), open_npz(tmp_path / "a.npz") as arrays:
        arrays["logits"]
