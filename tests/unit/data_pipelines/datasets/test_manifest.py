"""A list of videos as large as Kinetics: what it costs, and that it behaves as a tuple of strings would."""

import os
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.datasets.kinetics import read_kinetics
from data_pipelines.datasets.manifest import PathList, VideoManifest, on_disk
from data_pipelines.io.errors import DataError

VIDEOS = 240_000
BOUNDS = st.none() | st.integers(-12, 12)


@given(st.lists(st.text(), max_size=10), st.builds(slice, BOUNDS, BOUNDS, BOUNDS.filter(lambda step: step != 0)))
def test_a_path_list_is_a_tuple_of_strings(strings, part):
    paths = PathList(strings)
    assert len(paths) == len(strings) and tuple(paths) == tuple(strings)
    assert paths == strings == paths and paths == tuple(strings) and paths == PathList(strings)
    assert [paths[i] for i in range(-len(strings), len(strings))] == strings * 2
    assert isinstance(paths[part], PathList) and paths[part] == strings[part]
    assert paths != [*strings, "one more"] and paths != PathList([*strings, ""])
    assert list(reversed(paths)) == strings[::-1] and all(string in paths for string in strings)
    assert pickle.loads(pickle.dumps(paths)) == paths
    with pytest.raises(IndexError):
        paths[len(strings)]


def test_a_path_list_tells_apart_what_only_joins_to_the_same_letters():
    assert PathList(["ab", "c"]) != PathList(["a", "bc"])
    assert PathList(["caf\udce9.mp4"])[0] == "caf\udce9.mp4"  # a file name in Latin-1, as os.listdir gives it
    with pytest.raises(TypeError):
        PathList(["a"])[0] = "b"


@pytest.fixture(scope="module")
def large_list(tmp_path_factory):
    file = tmp_path_factory.mktemp("large") / "train.csv"
    lines = (f"train/class with a name {i % 400}/{i:011d}_000010_000020.mp4 {i % 400}" for i in range(VIDEOS))
    file.write_text("\n".join(lines))
    return file


def test_kinetics_sized_lists_are_read_fast(large_list):
    start = time.process_time()
    manifest = read_kinetics(large_list, "/data")
    read = time.process_time()
    assert len(manifest.missing()) == VIDEOS
    assert read - start < 4 and time.process_time() - read < 4  # about 1 s each
    assert manifest.paths[123_456] == "/data/train/class with a name 256/00000123456_000010_000020.mp4"
    assert manifest.labels[123_456] == 256


def test_kinetics_sized_lists_are_small(large_list):
    tracemalloc.start()
    manifest = read_kinetics(large_list, "/data")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    letters = sum(map(len, manifest.paths))
    assert kept < letters + 16 * VIDEOS + 2**20  # an object per path would be 50 bytes and more on top
    assert peak < 150 * 2**20
    assert len(pickle.dumps(manifest)) < letters + 16 * VIDEOS + 2**20


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel does not tell private memory")
def test_a_worker_that_reads_every_path_copies_little(large_list):
    manifest = read_kinetics(large_list, "/data")
    read, write = os.pipe()
    child = os.fork()  # as a loader forks its workers
    if not child:
        letters = sum(map(len, manifest.paths))
        rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
        private = sum(int(row.split()[1]) for row in rows if row.startswith("Private_Dirty"))
        os.write(write, f"{letters} {private}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    letters, kilobytes = map(int, os.read(read, 100).split())
    assert letters == sum(map(len, manifest.paths)) and kilobytes < 20 * 1024


def test_a_video_listed_twice_is_named():
    paths = [f"{i}.mp4" for i in range(1000)]
    with pytest.raises(DataError, match=r"made here: lists 77\.mp4 more than once"):
        VideoManifest([*paths, "77.mp4"], np.zeros(1001, np.int64), ("a",), "made here")


def test_what_is_left_is_what_exists(tmp_path):
    names = ["é.mp4", "gone.mp4", "frames", "also gone.mp4"]
    (tmp_path / names[0]).touch()
    (tmp_path / names[2]).mkdir()
    manifest = VideoManifest([str(tmp_path / n) for n in names], np.arange(4), tuple("abcd"), "made here")
    present = on_disk(manifest)
    assert manifest.missing() == [1, 3] and present.left_out == 2
    assert present.paths == manifest.paths[::2] and present.labels.tolist() == [0, 2]
