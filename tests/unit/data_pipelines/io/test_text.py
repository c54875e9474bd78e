"""Lines, names, and text that is not UTF-8."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.io.atomic import write_json, write_text
from data_pipelines.io.errors import DataError, first_line
from data_pipelines.io.text import numbered_lines, one_line, output_name, printable, read_names

FILE_NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, ord("/")} & set(name)).map(os.fsdecode)


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffé 1\r\n\n  \nb 2".encode())
    assert list(numbered_lines(tmp_path / "list.txt")) == [(1, "é 1\n"), (4, "b 2")]


def test_lines_of_a_binary_file_are_an_error(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a 1\n\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list\.txt:2: "):
        list(numbered_lines(tmp_path / "list.txt"))


@given(FILE_NAMES)
def test_every_file_name_survives_a_list_and_json(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    write_json(folder / "names.json", [name])
    assert json.loads((folder / "names.json").read_text(encoding="utf-8")) == [name]
    if name.strip() == name and not {"\n", "\r"} & set(name):
        write_text(folder / "names.txt", f"{name}\n")
        assert read_names(folder / "names.txt") == (name,)


@given(FILE_NAMES)
def test_every_output_name_is_a_file_name_and_text(tmp_path_factory, name):
    output = output_name(name)
    output.encode("utf-8")
    assert printable(output) == output
    (tmp_path_factory.mktemp("outputs") / f"{output}_attention_step_00000000.png").write_bytes(b"")


def test_long_names_keep_their_start_and_stay_different():
    names = [output_name(f"a/{'é' * 110}{end}.mp4") for end in "xy"]
    assert names[0] != names[1] and all(name.startswith("a/éééé") for name in names)
    assert output_name("a/b c é 日本 #2.mp4") == "a/b c é 日本 #2.mp4"


def test_what_is_no_text_is_escaped():
    assert printable(os.fsdecode(b"b\xe4r \xe2\x80\xa8")) == "b\\xe4r \\u2028"
    assert printable("75\u00a0%") == "75\u00a0%"  # as figures write it


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"\xef\xbb\xbfcat\r\ndog\r\n", ("cat", "dog")),
        (b"cat\ndog\n\n", ("cat", "dog")),
        (b"b\xe4r\ndog", (os.fsdecode(b"b\xe4r"), "dog")),
    ],
)
def test_names_of_other_editors(tmp_path, content, names):
    (tmp_path / "classes.txt").write_bytes(content)
    assert read_names(tmp_path / "classes.txt") == names


@pytest.mark.parametrize(("content", "found"), [(b"cat\ndog\ncat\n", ":3: found 'cat'"), (b" \n", ": found no names")])
def test_names_that_cannot_be_used(tmp_path, content, found):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"classes\.txt{found}"):
        read_names(tmp_path / "classes.txt")


def test_first_line_of_an_error():
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) < 1000


def test_names_in_messages_can_neither_control_a_terminal_nor_split_a_list():
    assert one_line("\x1b[31mred\x07\n.mp4") == "\\x1b[31mred\\x07\\n.mp4"
    assert one_line("a" * 2**20) == "a" * 10_000 + "... (1048576 characters)"
