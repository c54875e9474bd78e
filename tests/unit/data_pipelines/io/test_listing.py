"""Folder listings and file types."""

from data_pipelines.datasets.layout import find_file
from data_pipelines.io.listing import is_folder, is_image, is_video, sorted_entries, videos_below


def test_file_types_are_recognised_in_any_letter_case():
    assert is_video("a.mp4") and is_video("a.b.WEBM") and not is_video("mp4") and not is_video("a.mp4.part")
    assert is_image("a.JPEG") and not is_image("a.gif") and not is_video("a.jpg")


def test_videos_of_a_folder_and_its_subfolders(tmp_path):
    for name in ("z.mp4", "b/2.mkv", "b/1.mp4", "b/deep/3.mp4", "a/4.avi", "skipped/5.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(folder, stem) for folder, stem, _ in videos_below(tmp_path, skip=["skipped"])]
    assert found == [("", "z"), ("a", "4"), ("b", "1"), ("b", "2")]
    assert [path for *_, path in videos_below(tmp_path / "a")] == [str(tmp_path / "a" / "4.avi")]
    assert [entry.name for entry in sorted_entries(tmp_path)] == ["a", "b", "notes.txt", "skipped", "z.mp4"]


def test_hidden_files_are_not_listed(tmp_path):
    for name in ("a.mp4", "._a.mp4", ".DS_Store", ".trash/b.mp4", "c/d.mp4", "c/._d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [stem for _, stem, _ in videos_below(tmp_path)] == ["a", "d"]
    assert [entry.name for entry in sorted_entries(tmp_path)] == ["a.mp4", "c"]
    assert find_file(tmp_path, [""], ["*.mp4"], "").name == "a.mp4"


def test_a_link_to_itself_is_no_folder(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").touch()
    (tmp_path / "link").symlink_to("a")
    assert [entry.name for entry in sorted_entries(tmp_path) if is_folder(entry)] == ["a", "link"]
    assert [folder for folder, *_ in videos_below(tmp_path)] == ["a", "link"]
