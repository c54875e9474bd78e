"""Manifests: a list of strings that behaves like a tuple, its costs at the size of Kinetics, missing videos."""

import gc
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.datasets.kinetics import read_kinetics
from data_pipelines.datasets.manifest import StringList, VideoManifest, exclude_listed, exclude_missing, skip_line
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.io.text import ENCODING

NUM_VIDEOS = 240_000
BOUNDS = st.none() | st.integers(-12, 12)


@given(st.lists(st.text(), max_size=10), st.builds(slice, BOUNDS, BOUNDS, BOUNDS.filter(lambda step: step != 0)))
def test_a_string_list_behaves_like_a_tuple(strings, part):
    stored = StringList(strings)
    assert len(stored) == len(strings) and tuple(stored) == tuple(strings)
    assert stored == strings == stored and stored == tuple(strings) and stored == StringList(strings)
    assert [stored[i] for i in range(-len(strings), len(strings))] == strings * 2
    assert isinstance(stored[part], StringList) and stored[part] == strings[part]
    assert stored != [*strings, "another"] and stored != StringList([*strings, ""])
    assert list(reversed(stored)) == strings[::-1] and all(string in stored for string in strings)
    assert pickle.loads(pickle.dumps(stored)) == stored
    with pytest.raises(IndexError):
        stored[len(strings)]


def test_string_list_details():
    assert StringList(["ab", "c"]) != StringList(["a", "bc"])
    assert StringList(["caf\udce9.mp4"])[0] == "caf\udce9.mp4"  # a file name in Latin-1, as os.listdir returns it
    with pytest.raises(TypeError):
        StringList(["a"])[0] = "b"


def write_list(file, num_videos):
    lines = (f"train/class with a name {i % 400}/{i:011d}_000010_000020.mp4 {i % 400}" for i in range(num_videos))
    file.write_text("\n".join(lines))
    return file


def test_large_lists_are_shared_with_forked_workers(tmp_path):
    manifest = read_kinetics(write_list(tmp_path / "train.csv", NUM_VIDEOS), "/data")
    assert len(manifest.missing()) == NUM_VIDEOS
    assert manifest.paths[123_456] == "/data/train/class with a name 256/00000123456_000010_000020.mp4"
    assert manifest.labels[123_456] == 256
    if Path("/proc/self/smaps_rollup").exists():
        assert private_memory_of_a_worker(manifest) < 20 * 2**20


def test_lists_need_little_memory(tmp_path):
    num_videos = NUM_VIDEOS // 8  # tracemalloc is slow
    file = write_list(tmp_path / "train.csv", num_videos)
    tracemalloc.start()
    manifest = read_kinetics(file, "/data")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    num_characters = sum(map(len, manifest.paths))
    assert kept < num_characters + 16 * num_videos + 2**18  # one object per path would add 50 bytes or more
    assert peak < 150 / 8 * 2**20
    assert len(pickle.dumps(manifest)) < num_characters + 16 * num_videos + 2**18


def private_memory_of_a_worker(manifest):
    """Bytes that a forked process copies while it reads every path."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        gc.disable()  # a collection would copy the memory of the whole test process
        before = private_kilobytes()
        num_characters = sum(map(len, manifest.paths))
        kilobytes = private_kilobytes() - before
        os.write(write_end, f"{num_characters} {kilobytes}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    num_characters, kilobytes = map(int, os.read(read_end, 100).split())
    assert num_characters == sum(map(len, manifest.paths))
    return 1024 * kilobytes


def private_kilobytes():
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_Dirty"))


def test_a_video_that_is_listed_twice_is_named():
    paths = [f"{i}.mp4" for i in range(1000)]
    with pytest.raises(DataError, match=r"source: .*\b77\.mp4"):
        VideoManifest([*paths, "77.mp4"], np.zeros(1001, np.int64), ("a",), "source")


def test_missing_videos_are_excluded(tmp_path):
    names = ["é.mp4", "gone.mp4", "frames", "other/gone.mp4"]
    manifest = VideoManifest([str(tmp_path / name) for name in names], np.arange(4), tuple("abcd"), "source")
    with pytest.raises(MissingDataError, match=r"source: none of its 4 videos .*é\.mp4"):
        exclude_missing(manifest)
    (tmp_path / names[0]).touch()
    (tmp_path / names[2]).mkdir()
    present = exclude_missing(manifest)
    assert manifest.missing() == [1, 3] and present.num_missing == 2
    assert present.paths == manifest.paths[::2] and present.labels.tolist() == [0, 2]
    assert present.class_names == manifest.class_names
    assert exclude_missing(present) is present


def test_listed_videos_are_excluded(tmp_path):
    manifest = VideoManifest(["a.mp4", "b.mp4"], np.arange(2), ("x", "y"), "source")
    skip_list = tmp_path / "skip.txt"
    with pytest.raises(MissingDataError, match=r"skip\.txt"):
        exclude_listed(manifest, skip_list)
    skip_list.write_text("a.mp4\ta reason\nunknown.mp4\n")
    kept = exclude_listed(manifest, skip_list)
    assert kept.paths == ["b.mp4"] and kept.labels.tolist() == [1]
    skip_list.write_text("a.mp4\nb.mp4\n")
    with pytest.raises(DataError, match=r"skip\.txt: .*\b2 videos of source"):
        exclude_listed(manifest, skip_list)


def test_a_skip_list_names_files_in_any_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = VideoManifest(["a.mp4", "x/../b.mp4", "c.mp4"], np.arange(3), ("x", "y", "z"), "source")
    (tmp_path / "skip.txt").write_bytes(f"\ufeff{tmp_path}/a.mp4\r\n\n./b.mp4\tdamaged\r\n".encode())
    assert exclude_listed(manifest, tmp_path / "skip.txt").paths == ["c.mp4"]


@given(st.permutations(["a", "b", "c"]))
def test_labels_follow_the_order_of_other_class_names(names):
    manifest = VideoManifest(list("wxyz"), np.array([0, 1, 2, 1]), ("a", "b", "c"), "source")
    ordered = manifest.in_class_order(names, "model")
    assert [ordered.class_names[label] for label in ordered.labels] == ["a", "b", "c", "b"]
    assert ordered.class_names == tuple(names) and ordered.paths == manifest.paths


@pytest.mark.parametrize(
    ("names", "message"),
    [(("a", "c"), r"source: found the class 'b', which model lacks"), (("a", "b", "d"), r"model: found the class 'd'")],
)
def test_other_classes_are_named(names, message):
    manifest = VideoManifest(["x"], np.zeros(1, np.int64), ("a", "b"), "source")
    with pytest.raises(DataError, match=message):
        manifest.in_class_order(names, "model")


def test_classes_without_a_video():
    manifest = VideoManifest(["x", "y"], np.array([2, 0]), ("a", "b", "c", "d"), "source")
    assert manifest.empty_classes() == ["b", "d"]


@pytest.mark.parametrize(
    "path", ["a.mp4", "a\tb.mp4", "a\nb.mp4", '"a".mp4', os.fsdecode(b"\xe4.mp4"), '"a', "a\\nb.mp4"]
)
def test_every_path_can_be_skipped(tmp_path, path):
    manifest = VideoManifest([path, "a", "b.mp4"], np.zeros(3, np.int64), ("c",), "list")
    (tmp_path / "skip.txt").write_text(skip_line(path, "several\nlines"), *ENCODING)
    assert exclude_listed(manifest, tmp_path / "skip.txt").paths == ["a", "b.mp4"]
