"""Files, folders and glob patterns of a command line."""

import os

import pytest

from data_pipelines.io.errors import MissingDataError
from data_pipelines.io.input_paths import expand_inputs


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
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_are_searched_recursively(tree):
    expected = ["a.mp4", "b/a.mp4", "b/c/d.AVI", "mixed/cover.png", "mixed/e.webm", "odd [1].mp4"]
    inputs = expand_inputs(["."])
    assert sorted(inputs.paths) == sorted([*expected, "frames"])
    assert all(os.path.samefile(tree / name, path) for name, path in inputs.paths.items())
    assert inputs.num_ignored == 3  # notes.txt twice and no_suffix
    assert expand_inputs(["frames"]).paths == {"frames": "frames"}


def test_a_folder_of_images_as_separate_images(tree):
    names = list(expand_inputs([tree], separate_images=True).paths)
    assert "frames" not in names
    assert [name for name in names if name.startswith("frames")] == ["frames/10.jpg", "frames/2.jpg"]


def test_files_and_patterns(tree):
    assert expand_inputs(["odd [1].mp4", "no_suffix"]).paths == {"odd [1].mp4": "odd [1].mp4", "no_suffix": "no_suffix"}
    assert list(expand_inputs(["b/*"]).paths.values()) == ["b/a.mp4", "b/c/d.AVI", "b/notes.txt"]
    assert list(expand_inputs(["**/*.AVI"]).paths.values()) == ["b/c/d.AVI"]


def test_paths_are_listed_once_under_unique_names(tree):
    """Outputs are named after the inputs, and one must not replace another."""
    here = tree.name
    assert expand_inputs(["a.mp4", "b/a.mp4", "a.mp4"]).paths == {f"{here}/a.mp4": "a.mp4", "b/a.mp4": "b/a.mp4"}
    assert expand_inputs(["a.mp4", "./a.mp4", "b/../a.mp4", tree / "a.mp4"]).paths == {"a.mp4": "a.mp4"}
    assert expand_inputs(["frames", "frames/", tree / "frames"]).paths == {"frames": "frames"}
    assert expand_inputs([".", "b"]).paths.keys() == expand_inputs(["."]).paths.keys()


def test_equal_names_of_several_folders_are_preceded_by_the_folders(tree):
    for name in ("1/x/a.mp4", "2/x/a.mp4", "2/y/a.mp4"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / "2" / "link").symlink_to(tree / "b" / "c")
    assert list(expand_inputs(["1/x", "2/x"]).paths) == ["1/x/a.mp4", "2/x/a.mp4"]
    assert list(expand_inputs(["1/x/a.mp4", "2/y", "b/c"]).paths) == ["x/a.mp4", "y/a.mp4", "d.AVI"]
    paths = expand_inputs(["1/x/a.mp4", "2/x/a.mp4", "2/y/a.mp4", "2/link/../a.mp4"]).paths
    assert list(paths) == ["1/x/a.mp4", "2/x/a.mp4", "y/a.mp4", "2/a.mp4"]
    assert os.path.samefile(paths["2/a.mp4"], "b/a.mp4")


def test_links_to_folders_outside_are_followed_once_and_never_in_circles(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x.mp4").touch()
    (outside / "inner").mkdir()
    for link, target in (("again", outside), ("back", tree), ("inner/up", outside)):
        (outside / link).symlink_to(target)
    (tree / "b" / "linked").symlink_to(outside)
    (tree / "b" / "self").symlink_to(tree)
    assert list(expand_inputs(["b"]).paths) == ["a.mp4", "c/d.AVI", "linked/x.mp4"]


@pytest.mark.parametrize("argument", ["nowhere.mp4", "*.mkv", "empty", "texts"])
def test_an_argument_without_inputs_is_an_error(tree, argument):
    with pytest.raises(MissingDataError) as error:
        expand_inputs(["a.mp4", argument])
    assert str(error.value).startswith(f"{argument}: ")
    assert ("1 files" in str(error.value)) == (argument == "texts")
