"""What files, folders and patterns of a command line mean."""

import os

import pytest

from data_pipelines.io.errors import MissingDataError
from data_pipelines.io.input_paths import find_videos


@pytest.fixture
def tree(tmp_path, monkeypatch):
    files = (
        "a.mp4",
        "b/a.mp4",
        "b/c/d.AVI",
        "b/notes.txt",
        "b/.hidden.mp4",
        ".git/x.mp4",
        "frames/2.jpg",
        "frames/10.jpg",
        "mixed/e.webm",
        "mixed/cover.png",
        "odd [1].mp4",
        "no_suffix",
    )
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_and_all_below(tree):
    expected = ["a.mp4", "b/a.mp4", "b/c/d.AVI", "mixed/cover.png", "mixed/e.webm", "odd [1].mp4"]
    found = find_videos(["."])
    assert sorted(found.paths) == sorted([*expected, "frames"])
    assert all(os.path.samefile(tree / name, path) for name, path in found.paths.items())
    assert found.ignored == 2  # notes.txt and no_suffix
    pictures = find_videos([tree], single_pictures=True)
    assert sorted(pictures.paths) == sorted([*expected, "frames/10.jpg", "frames/2.jpg"])
    assert find_videos(["frames"]).paths == {"frames": "frames"}


def test_files_and_patterns(tree):
    assert find_videos(["odd [1].mp4", "no_suffix"]).paths == {"odd [1].mp4": "odd [1].mp4", "no_suffix": "no_suffix"}
    assert list(find_videos(["b/*"]).paths.values()) == ["b/a.mp4", "b/c/d.AVI", "b/notes.txt"]
    assert list(find_videos(["**/*.AVI"]).paths.values()) == ["b/c/d.AVI"]
    # Each once, and two of one name told apart: pictures of theirs must not replace each other.
    assert find_videos(["a.mp4", "b/a.mp4", "a.mp4"]).paths == {"a.mp4": "a.mp4", "a (2).mp4": "b/a.mp4"}


def test_what_is_not_there_is_named(tree):
    for asked, words in {
        "nowhere.mp4": "^nowhere.mp4: no such file or folder",
        "*.mkv": r"^\*.mkv: matches no file or folder",
        "empty": "^empty: a folder without any video or picture$",
    }.items():
        with pytest.raises(MissingDataError, match=words):
            find_videos(["a.mp4", asked])
