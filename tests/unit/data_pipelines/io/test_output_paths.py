"""Checks of output paths."""

import os

import pytest

from data_pipelines.io.output_paths import OutputPathError, require_output_file, require_output_folder


def test_paths_that_can_be_written_pass_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").write_text("kept")
    (tmp_path / "link").symlink_to("old")
    for file in ("old", "new", "a/b/new", "link", "a/../new", tmp_path / "new"):
        require_output_file(file)
    for folder in (".", "..", "a", "a/b", "a/../b", tmp_path, tmp_path / "a"):
        require_output_folder(folder)
    assert sorted(os.listdir()) == ["link", "old"] and (tmp_path / "old").read_text() == "kept"


@pytest.mark.parametrize(
    ("require", "path", "found"),
    [
        (require_output_folder, "file", "found a file, expected a folder"),
        (require_output_folder, "file/a/b", "file is a file, expected a folder"),
        (require_output_folder, "dangling", "found a link to a missing file, expected a folder"),
        (require_output_folder, "a/" + 300 * "n", "File name too long"),
        (require_output_folder, "/proc/a", "cannot be written"),
        (require_output_file, "folder", "found a folder, expected a file"),
        (require_output_file, "file/a", "file is a file, expected a folder"),
        (require_output_file, "dangling", "found a link to a missing file, expected a file"),
        (require_output_file, "/dev/null", "found a device or pipe, expected a file"),
        (require_output_file, "pipe", "found a device or pipe, expected a file"),
        (require_output_file, 300 * "n", "File name too long"),
        (require_output_file, "a/" + 300 * "n" + "/b", "File name too long"),
        (require_output_file, "/proc/a/b.json", "cannot be written"),
        (require_output_file, "", "expected a file"),
    ],
)
def test_paths_that_cannot_be_written_are_errors(tmp_path, monkeypatch, require, path, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputPathError) as error:
        require(path)
    assert str(error.value).startswith(f"{path or '.'}: ") and found in str(error.value)
    assert len(os.listdir()) == 4 and not os.listdir("folder")


def test_a_deleted_current_folder_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    for require in (require_output_file, require_output_folder):
        with pytest.raises(OutputPathError, match=r"^a/b: .* deleted"):
            require("a/b")
