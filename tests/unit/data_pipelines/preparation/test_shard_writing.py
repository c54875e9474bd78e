"""Packing images into shards; reading them back is tested with `data_pipelines.datasets.shards`."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.preparation import shard_writing
from data_pipelines.preparation.shard_writing import write_shards

pytest.importorskip("webdataset")


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return VideoManifest(tuple(map(str, paths)), np.arange(6) % 2, ("a", "b"), "test")


def test_shards_appear_when_all_are_complete(images, tmp_path, monkeypatch):
    folder, written = tmp_path / "shards", []
    sample = shard_writing._sample

    def recorded(manifest, index, number):
        assert not list(folder.glob("*.tar"))
        written.append(index)
        return sample(manifest, index, number)

    monkeypatch.setattr(shard_writing, "_sample", recorded)
    shards = write_shards(images, folder, "train", shard_bytes=150)
    assert len(shards) > 1 and shards == sorted(folder.glob("*.tar"))
    assert sorted(written) == list(range(6)) and written != list(range(6))
    assert sorted(path.name for path in folder.iterdir()) == ["classes.txt", *(path.name for path in shards)]
    assert (folder / "classes.txt").read_text() == "a\nb\n"


def test_remains_of_a_killed_call_are_removed(images, tmp_path):
    for remains in (".train-shards-abc", ".val-shards-abc"):
        (tmp_path / remains).mkdir()
        (tmp_path / remains / "train-000000.tar").write_bytes(b"incomplete")
    write_shards(images, tmp_path, "train")
    assert [path.name for path in tmp_path.glob(".*")] == [".val-shards-abc"]  # another call may be writing these
