"""Tar shards, compared with webdataset's reading of the same files."""

import io
import json
import os
import pickle
import re
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image
from support.image_models import write_images
from support.tars import image_bytes, write_tar

from data_pipelines.datasets import shard_index
from data_pipelines.datasets.class_folders import read_split_folders
from data_pipelines.datasets.clips import ClipDataset, MultiViewDataset
from data_pipelines.datasets.manifest import VideoManifest, exclude_missing
from data_pipelines.datasets.shards import read_shard_classes, read_shards
from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.io.tar_paths import parse_tar_path
from data_pipelines.loader import TrainingOrder, eval_loader, train_loader
from data_pipelines.preparation.scanning import scan
from data_pipelines.preparation.shard_writing import write_shards
from data_pipelines.preprocess import Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.train_transform import TrainTransform
from data_pipelines.video.reader import read_frames

webdataset = pytest.importorskip("webdataset")
CLASSES = ("n01", "n02", "n03")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Root, training images in class folders, and the same images in shards of about two."""
    root = tmp_path_factory.mktemp("imagenet")
    for split, count in (("train", 4), ("val", 3)):
        write_images(root / "folders" / split, CLASSES, count, seed=count)
    (root / "folders" / "train" / "n02" / "0.JPEG").rename(root / "folders" / "train" / "n02" / "a.b 100% é.JPEG")
    manifests = {split: read_split_folders(root / "folders", split) for split in ("train", "val")}
    for split, manifest in manifests.items():
        assert len(write_shards(manifest, root / "shards", split, 1500)) > 2
    return root, manifests["train"], read_shards(root / "shards", "train-*.tar", CLASSES)


def labelled_pixels(manifest):
    """Label and pixels of each image, sorted."""
    samples = zip(manifest.labels.tolist(), manifest.paths, strict=True)
    return sorted((label, read_frames(path, [0]).tobytes()) for label, path in samples)


def test_images_and_labels_match_webdataset(dataset):
    root, folders, manifest = dataset
    assert labelled_pixels(manifest) == labelled_pixels(folders)
    assert manifest.missing() == [] and manifest.num_ignored == 0
    files = sorted(map(str, (root / "shards").glob("train-*.tar")))
    samples = list(webdataset.WebDataset(files, shardshuffle=False, empty_check=False))
    assert [parse_tar_path(path).name for path in manifest.paths] == [f"{s['__key__']}.jpeg" for s in samples]
    assert manifest.labels.tolist() == [int(sample["cls"]) for sample in samples]
    for path, sample in zip(manifest.paths, samples, strict=True):
        expected = np.asarray(Image.open(io.BytesIO(sample["jpeg"])).convert("RGB"))
        assert np.array_equal(read_frames(path, [0])[0], expected)
    assert read_shard_classes(root / "shards", None, 3) == CLASSES


def test_training_does_not_depend_on_workers_ranks_or_resuming(dataset):
    """The samples are bit-identical, and every image occurs once per epoch."""
    _, _, manifest = dataset
    data = ClipDataset(manifest, Sampling(1, 1), TrainTransform(16, 20, random_resized_crop=(0.1, 1)), seed=3)
    order = TrainingOrder(len(manifest), 4, seed=3)

    def samples(start, workers=0, ranks=1):
        loaders = [train_loader(data, order, start, 6, r, ranks, 4 // ranks, 1, workers) for r in range(ranks)]
        batches = [batch for step in zip(*loaders, strict=True) for batch in step]
        return [
            (name, video.numpy().tobytes())
            for batch in batches
            for name, video in zip(batch["video_name"], batch["video"], strict=True)
        ]

    reference = samples(0)
    for epoch in (reference[:12], reference[12:]):
        assert sorted(name for name, _ in epoch) == sorted(manifest.paths)
    assert samples(0, workers=2) == reference == samples(0, ranks=2)
    assert samples(4) == reference[16:]


@pytest.mark.parametrize("ranks", [1, 3, 5])
def test_testing_reads_every_image_once(dataset, ranks):
    _, _, manifest = dataset
    views = MultiViewDataset(manifest, Preprocess(Sampling(1, 1), 20, 16), 1, 1)
    batches = [batch for rank in range(ranks) for batch in eval_loader(views, rank, ranks, 2, 0)]
    assert sorted(name for batch in batches for name in batch["video_name"]) == sorted(manifest.paths)


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_label_formats(tmp_path, tar_format):
    """Labels in .cls, .txt and .json; names of any length and script; other members, such as pickles, stay unread."""
    long_name = "x" * 120 + "/" + "é" * 90

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    pickled = pickle.dumps(Malicious())
    members = [
        ("./a.dir/1.JPG", image_bytes(10)),
        ("./a.dir/1.cls", b" 2\n"),
        ("./a.dir/1.json", b'{"label": 0}'),
        (f"{long_name}.json", b'{"label": 1, "width": 10}'),
        (f"{long_name}.txt", b"a caption"),
        (f"{long_name}.png", image_bytes(20)),
        ("3.pkl", pickled),
        ("3.pyd", pickled),
        ("3.pth", pickled),
        ("3.txt", b"0"),
        ("3.webp", image_bytes(30, "webp")),
        ("4.cls", b"1"),
        ("4.mp4", b""),
        ("README", b"not a sample"),
    ]
    write_tar(tmp_path / "train.tar", members, format=tar_format)
    manifest = read_shards(tmp_path, "train.tar", CLASSES)
    assert manifest.labels.tolist() == [2, 1, 0] and manifest.num_ignored == 6
    assert manifest.paths[0].endswith("/./a.dir/1.JPG")
    for path, value in zip(manifest.paths, (10, 20, 30), strict=True):
        assert abs(int(read_frames(path, [0]).mean()) - value) <= 1
    assert not (tmp_path / "executed").exists()


def test_a_shard_is_scanned_again_only_if_it_has_changed(tmp_path, monkeypatch):
    file = write_tar(tmp_path / "train.tar", [("1.png", image_bytes(1)), ("1.cls", b"1")])
    first = read_shards(tmp_path, "*.tar", CLASSES)
    scanned, scan_shard = [], shard_index.scan_shard
    monkeypatch.setattr(shard_index, "scan_shard", lambda shard: scanned.append(shard) or scan_shard(shard))
    assert read_shards(tmp_path, "*.tar", CLASSES).paths == first.paths and not scanned
    shard_index.index_file(str(file)).write_bytes(b"PK damaged")
    assert read_shards(tmp_path, "*.tar", CLASSES).paths == first.paths and scanned == [str(file)]
    write_tar(file, [("2.png", image_bytes(1)), ("2.cls", b"2")])
    os.utime(file, ns=(1, 1))
    assert read_shards(tmp_path, "*.tar", CLASSES).labels.tolist() == [2] and len(scanned) == 2


def test_a_read_only_folder_is_scanned_every_time(tmp_path, monkeypatch):
    def refuse(file):
        raise PermissionError(file)

    monkeypatch.setattr(shard_index, "atomic_write", refuse)
    file = write_tar(tmp_path / "train.tar", [("1.png", image_bytes(1)), ("1.cls", b"1")])
    assert len(read_shards(tmp_path, "*.tar", CLASSES)) == 1
    assert not shard_index.index_file(str(file)).exists()


def test_damaged_images_are_handled_as_in_other_datasets(tmp_path):
    intact = image_bytes(9, "jpeg")
    contents = {"1.jpg": b"no image", "2.png": image_bytes(9)[:40], "3.jpg": b"", "4.jpg": intact}
    members = []
    for label, (name, content) in zip((0, 1, 1, 2), contents.items(), strict=True):
        members += [(name, content), (f"{name[0]}.cls", str(label).encode())]
    file = write_tar(tmp_path / "train.tar", members)
    manifest = read_shards(tmp_path, "train.tar", CLASSES)
    for path in manifest.paths[:3]:
        with pytest.raises(VideoDecodeError, match=re.escape(path)):
            read_frames(path, [0])
    data = ClipDataset(manifest, Sampling(1, 1), TrainTransform(8, 8), seed=0)
    (substitute,) = data[0, 0]
    assert substitute["label"] == 2 and substitute["failed"].startswith(f"{file}@512+8/1.jpg: ")
    views = MultiViewDataset(manifest, Preprocess(Sampling(1, 1), 8, 8), 1, 1)
    assert views[1]["failed"]
    rows = scan(manifest, tmp_path / "rows.csv", 1, 30)
    assert [row.status for row in rows] == ["failed"] * 3 + ["ok"] and rows[3].bytes == len(intact)
    os.truncate(file, 600)  # after the scan
    assert f"of {len(intact)} bytes" in views[3]["failed"]
    file.unlink()
    with pytest.raises(MissingDataError, match="4 images"):
        exclude_missing(manifest)


@pytest.mark.slow
def test_many_new_shards_are_scanned_in_parallel(tmp_path):
    for number in range(shard_index.MAX_SERIAL_SHARDS + 2):
        label = str(number % 3).encode()
        write_tar(tmp_path / f"train-{number:03d}.tar", [("1.png", image_bytes(number)), ("1.cls", label)])
    manifest = read_shards(tmp_path, "train-*.tar", CLASSES)
    assert manifest.labels.tolist() == [number % 3 for number in range(len(manifest))]
    assert [int(read_frames(path, [0]).max()) for path in manifest.paths] == list(range(len(manifest)))
    for shard in tmp_path.glob("train-*.tar"):
        write_tar(shard, [("1.png", b"")])
    with pytest.raises(DataError, match=r"train-000\.tar: 1\.png") as caught:
        read_shards(tmp_path, "train-*.tar", CLASSES)
    assert "\n" not in str(caught.value)


def test_all_shards_of_a_brace_pattern_must_exist(tmp_path):
    for number in (0, 1, 3):
        write_tar(tmp_path / f"train-{number:03d}.tar", [("1.png", image_bytes(1)), ("1.cls", b"1")])
    assert len(read_shards(tmp_path, "train-{000..001}.tar", CLASSES)) == 2
    with pytest.raises(MissingDataError, match=r"train-002\.tar: .*\(2 missing\)"):
        read_shards(tmp_path, "train-{000..004}.tar", CLASSES)
    with pytest.raises(DataError, match=r"train-\{000"):
        read_shards(tmp_path, "train-{000..004.tar", CLASSES)


def test_class_lists(tmp_path):
    assert read_shard_classes(tmp_path, None, 2) == ("0", "1")
    assert read_shard_classes(tmp_path, "imagenet", 1000)[0] == "n01440764"
    (tmp_path / "a.json").write_text(json.dumps(CLASSES))
    (tmp_path / "classes.json").write_text(json.dumps({"n03": 2, "n01": 0, "n02": 1}))
    assert read_shard_classes(tmp_path, "a.json", 3) == read_shard_classes(tmp_path, None, 3) == CLASSES
    with pytest.raises(MissingDataError, match=r"b\.json: "):
        read_shard_classes(tmp_path, "b.json", 3)
    for content in ("{", "[1, 2]", '["a", "a"]', '{"a": 1}', "[]", "3"):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError, match=r"a\.json: "):
            read_shard_classes(tmp_path, "a.json", 3)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfec\x00\n\x00")
    with pytest.raises(DataError, match=r"a\.txt:1: "):
        read_shard_classes(tmp_path, "a.txt", 1)


def test_shards_are_written_completely_or_not_at_all(dataset, tmp_path):
    root, folders, _ = dataset
    with pytest.raises(DataError, match=r"train-000000\.tar: "):
        write_shards(folders, root / "shards", "train")
    for shard in write_shards(folders, tmp_path / "100%", "train", 1500):  # bytes do not depend on the folder's name
        assert shard.read_bytes() == (root / "shards" / shard.name).read_bytes()
    some = folders.select(range(3))
    os.rename(some.paths[1], f"{some.paths[1]}.away")
    try:
        with pytest.raises(MissingDataError, match=re.escape(some.paths[1])):
            write_shards(some, tmp_path / "some", "train")
    finally:
        os.rename(f"{some.paths[1]}.away", some.paths[1])
    assert not list((tmp_path / "some").glob("*.tar"))
    assert len(write_shards(some, tmp_path / "some", "train")) == 1  # despite the first call's leftovers


def test_shards_contain_images_only(tmp_path):
    (tmp_path / "x.mp4").touch()
    videos = VideoManifest([str(tmp_path / "x.mp4")], np.zeros(1, int), ("a",), "source")
    with pytest.raises(DataError, match=r"x\.mp4: "):
        write_shards(videos, tmp_path, "v")


def test_a_missing_library_is_named(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataError, match=r"webdataset .*pip install 'lookupvivit\[shards\]'"):
        read_shards(dataset[0] / "shards", "train-*.tar", CLASSES)
