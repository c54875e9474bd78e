"""Tar shards, against webdataset's own reading of the same files."""

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

from data_pipelines.datasets import shards
from data_pipelines.datasets.class_folders import read_folders
from data_pipelines.datasets.clips import ClipDataset, MultiViewDataset
from data_pipelines.datasets.manifest import on_disk
from data_pipelines.datasets.shards import read_shards, shard_classes
from data_pipelines.io.errors import DataError, MissingDataError, VideoDecodeError
from data_pipelines.loader import TrainingOrder, eval_loader, train_loader
from data_pipelines.preparation.scanning import scan
from data_pipelines.preparation.shard_writing import write_shards
from data_pipelines.preprocess import Preprocess
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.train_transform import TrainTransform
from data_pipelines.video.reader import read_frames

webdataset = pytest.importorskip("webdataset")
CLASSES = ("n01", "n02", "n03")


def picture(value, kind="png"):
    content = io.BytesIO()
    Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(content, kind)
    return content.getvalue()


def tar(path, members, **options):
    """A tar of (name, bytes), as tarfile writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same pictures in class folders and in shards of about two."""
    root = tmp_path_factory.mktemp("imagenet")
    for split, count in (("train", 4), ("val", 3)):
        write_images(root / "folders" / split, CLASSES, count, seed=count)
    (root / "folders" / "train" / "n02" / "0.JPEG").rename(root / "folders" / "train" / "n02" / "a.b 100% é.JPEG")
    found = [read_folders(root / "folders", split) for split in ("train", "val")]
    for split, manifest in zip(("train", "val"), found, strict=True):
        assert len(write_shards(manifest, root / "shards", split, 1500)) > 2
    return root, found[0], read_shards(root / "shards", "train-*.tar", CLASSES)


def pixels(manifest):
    """Label and pixels of every picture, sorted."""
    return sorted(
        (int(label), read_frames(path, [0]).tobytes())
        for path, label in zip(manifest.paths, manifest.labels, strict=True)
    )


def test_shards_are_what_webdataset_reads(both):
    root, folders, ours = both
    assert pixels(ours) == pixels(folders) and ours.missing() == [] and ours.ignored == 0
    files = sorted(map(str, (root / "shards").glob("train-*.tar")))
    theirs = webdataset.WebDataset(files, shardshuffle=False, empty_check=False)
    found = [(sample["__key__"], int(sample["cls"]), sample["jpeg"]) for sample in theirs]
    places = [shards.TarMember(*re.fullmatch(r"(.*\.tar)@(\d+)\+(\d+)/(.*)", path).groups()) for path in ours.paths]
    assert [(key + ".jpeg", label) for key, label, _ in found] == [
        (place.name, label) for place, label in zip(places, ours.labels.tolist(), strict=True)
    ]
    for path, (*_, content) in zip(ours.paths, found, strict=True):
        assert np.array_equal(read_frames(path, [0])[0], np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert shard_classes(root / "shards", None, 3) == CLASSES


def test_the_loaders_contract_holds(both):
    """Any number of workers and ranks, a resume in the middle: the same bits; every picture once an epoch."""
    _, _, manifest = both
    data = ClipDataset(manifest, Sampling(1, 1), TrainTransform(16, 20, random_resized_crop=(0.1, 1)), seed=3)
    order = TrainingOrder(len(manifest), 4, seed=3)

    def clips(start, workers=0, ranks=1):
        loaders = [train_loader(data, order, start, 6, r, ranks, 4 // ranks, 1, workers) for r in range(ranks)]
        steps = zip(*loaders, strict=True)
        return [
            (name, video.numpy().tobytes())
            for step in steps
            for part in step
            for name, video in zip(part["video_name"], part["video"], strict=True)
        ]

    whole = clips(0)
    for epoch in (whole[:12], whole[12:]):
        assert sorted(name for name, _ in epoch) == sorted(manifest.paths)
    assert clips(0, workers=2) == whole == clips(0, ranks=2) and clips(4) == whole[16:]
    views = MultiViewDataset(manifest, Preprocess(Sampling(1, 1), 20, 16), 1, 1)
    for ranks in (1, 3, 5):
        seen = [
            name
            for rank in range(ranks)
            for batch in eval_loader(views, rank, ranks, 2, 0)
            for name in batch["video_name"]
        ]
        assert sorted(seen) == sorted(manifest.paths)


def test_every_way_to_name_pictures_and_labels(tmp_path):
    """Labels in .cls, .txt and .json, names of any length and script; nothing else is opened, pickles least of all."""
    long = "x" * 120 + "/" + "é" * 90

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'run'}",)

    evil = pickle.dumps(Evil())
    for kind, suffix in ((tarfile.GNU_FORMAT, "gnu"), (tarfile.PAX_FORMAT, "pax")):
        tar(
            tmp_path / f"train-{suffix}.tar",
            [
                ("./a.dir/1.JPG", picture(10)),
                ("./a.dir/1.cls", b" 2\n"),
                ("./a.dir/1.json", b'{"label": 0}'),
                (f"{long}.json", b'{"label": 1, "width": 10}'),
                (f"{long}.txt", b"a caption"),
                (f"{long}.png", picture(20)),
                ("3.pkl", evil),
                ("3.pyd", evil),
                ("3.pth", evil),
                ("3.txt", b"0"),
                ("3.webp", picture(30, "webp")),
                ("4.cls", b"1"),
                ("4.mp4", b""),
                ("README", b"no sample"),
            ],
            format=kind,
        )
    manifest = read_shards(tmp_path, "train-{gnu,pax}.tar", CLASSES)
    assert manifest.labels.tolist() == 2 * [2, 1, 0] and manifest.ignored == 2 * 6
    assert manifest.paths[0].endswith("/./a.dir/1.JPG")
    for path, value in zip(manifest.paths, 2 * (10, 20, 30), strict=True):
        assert abs(int(read_frames(path, [0]).mean()) - value) <= 1
    assert not (tmp_path / "run").exists()


def test_a_shard_is_looked_through_once(both, tmp_path, monkeypatch):
    file = tar(tmp_path / "train.tar", [("1.png", picture(1)), ("1.cls", b"1")])
    first, looked, look = read_shards(tmp_path, "*.tar", CLASSES), [], shards.look_through
    monkeypatch.setattr(shards, "look_through", lambda shard: looked.append(shard) or look(shard))
    assert read_shards(tmp_path, "*.tar", CLASSES).paths == first.paths and not looked
    shards.index_file(str(file)).write_bytes(b"PK damaged")
    assert read_shards(tmp_path, "*.tar", CLASSES).paths == first.paths and looked == [str(file)]
    tar(file, [("2.png", picture(1)), ("2.cls", b"2")])  # changed since
    os.utime(file, ns=(1, 1))
    assert read_shards(tmp_path, "*.tar", CLASSES).labels.tolist() == [2] and len(looked) == 2
    (tmp_path / "other.tar").symlink_to(file)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert len(read_shards(tmp_path, "*.tar", CLASSES)) == 2  # a folder that cannot be written to


def test_broken_pictures_are_those_of_any_set(tmp_path):
    good, torn = picture(9, "jpeg"), picture(9)[:40]
    file = tar(
        tmp_path / "train.tar",
        [
            ("1.jpg", b"no picture"),
            ("1.cls", b"0"),
            ("2.png", torn),
            ("2.cls", b"1"),
            ("3.jpg", b""),
            ("3.cls", b"1"),
            ("4.jpg", good),
            ("4.cls", b"2"),
        ],
    )
    manifest = read_shards(tmp_path, "train.tar", CLASSES)
    for path in manifest.paths[:3]:
        with pytest.raises(VideoDecodeError, match=re.escape(f"{path}: cannot be decoded")):
            read_frames(path, [0])
    data = ClipDataset(manifest, Sampling(1, 1), TrainTransform(8, 8), seed=0)
    (stand_in,) = data[0, 0]
    assert stand_in["label"] == 2 and stand_in["failed"].startswith(f"{file}@512+10/1.jpg: cannot be decoded")
    assert MultiViewDataset(manifest, Preprocess(Sampling(1, 1), 8, 8), 1, 1)[1]["failed"]
    rows = scan(manifest, tmp_path / "rows.csv", 1, 30)
    assert [row.status for row in rows] == ["failed"] * 3 + ["ok"] and rows[3].bytes == len(good)
    os.truncate(file, 600)  # since it was looked through
    assert "the tar ends after" in MultiViewDataset(manifest, Preprocess(Sampling(1, 1), 8, 8), 1, 1)[3]["failed"]
    file.unlink()
    with pytest.raises(MissingDataError, match="none of its 4 videos exists"):
        on_disk(manifest)


def one(*members):
    return lambda folder: tar(folder / "train.tar", members)


def compressed(folder):
    with tarfile.open(folder / "train.tar", "w:gz") as file:
        file.addfile(tarfile.TarInfo("1.png"))


TWO = one(("1.png", picture(1)), ("1.cls", b"1"), ("2.png", picture(1)), ("2.cls", b"1"))


def cut(bytes_left):
    return lambda folder: os.truncate(TWO(folder), bytes_left)


def damaged(folder):
    with TWO(folder).open("r+b") as content:
        content.seek(2048)
        content.write(b"garbage" * 20)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (one(("1.png", b"")), r"train\.tar: 1\.png has no label; must have a whole number in 1\.cls or \.txt"),
        (one(("1.png", b""), ("1.cls", b"dog")), "1.png has no label"),
        (one(("1.png", b""), ("1.json", b'{"label": true}')), "1.png has no label"),
        (one(("1.png", b""), ("1.json", b"[" * 100000)), "1.png has no label"),
        (one(("1.png", b""), ("1.cls", b"7")), r"1\.png has the label 7, must be below 3, the number of classes"),
        (one(("1.png", b""), ("1.jpg", b""), ("1.cls", b"1")), r"1\.png and 1\.jpg are one sample"),
        (one(("1.cls", b"1")), "holds no picture"),
        (compressed, "cannot be read as an uncompressed tar"),
        (cut(700), "train.tar: cannot be read as an uncompressed tar|damaged or cut off"),
        (cut(2048), "damaged or cut off at byte 2048, must be a whole tar"),
        (damaged, "damaged or cut off at byte 2048, must be a whole tar"),
        (lambda folder: (folder / "train.tar").mkdir(), "train.tar: cannot be read"),
        (lambda folder: None, r"\*train\*\.tar: no such shard \(1 such\)"),
    ],
)
def test_what_is_wrong_with_a_shard_is_one_line(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        read_shards(tmp_path, "*train*.tar", CLASSES)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.slow
def test_many_new_shards_are_looked_through_by_many_processes(tmp_path):
    for number in range(shards.AT_ONCE + 2):
        tar(tmp_path / f"train-{number:03d}.tar", [("1.png", picture(number)), ("1.cls", str(number % 3).encode())])
    manifest = read_shards(tmp_path, "train-*.tar", CLASSES)
    assert manifest.labels.tolist() == [number % 3 for number in range(len(manifest))]
    assert [int(read_frames(path, [0]).max()) for path in manifest.paths] == list(range(len(manifest)))
    for shard in tmp_path.glob("train-*.tar"):
        tar(shard, [("1.png", b"")])
    with pytest.raises(DataError, match=r"train-000\.tar: 1\.png has no label") as caught:
        read_shards(tmp_path, "train-*.tar", CLASSES)
    assert "\n" not in str(caught.value)


def test_all_shards_of_braces_must_exist(tmp_path):
    for number in (0, 1, 3):
        tar(tmp_path / f"train-{number:03d}.tar", [("1.png", picture(1)), ("1.cls", b"1")])
    assert len(read_shards(tmp_path, "train-{000..001}.tar", CLASSES)) == 2
    with pytest.raises(MissingDataError, match=r"train-002\.tar: no such shard \(2 such\)"):
        read_shards(tmp_path, "train-{000..004}.tar", CLASSES)
    with pytest.raises(DataError, match="no pattern of shards"):
        read_shards(tmp_path, "train-{000..004.tar", CLASSES)


def test_class_lists(tmp_path):
    assert shard_classes(tmp_path, None, 2) == ("0", "1")
    assert shard_classes(tmp_path, "imagenet", 1000)[0] == "n01440764"
    (tmp_path / "a.json").write_text(json.dumps(CLASSES))
    (tmp_path / "classes.json").write_text(json.dumps({"n03": 2, "n01": 0, "n02": 1}))
    assert shard_classes(tmp_path, "a.json", 3) == shard_classes(tmp_path, None, 3) == CLASSES
    with pytest.raises(MissingDataError, match=r"b\.json: no such file; data\.class_list is"):
        shard_classes(tmp_path, "b.json", 3)
    for wrong in ("{", "[1, 2]", '["a", "a"]', '{"a": 1}', "[]", "3"):
        (tmp_path / "a.json").write_text(wrong)
        with pytest.raises(DataError, match=r"a\.json: no list of classes"):
            shard_classes(tmp_path, "a.json", 3)


def test_writing_is_whole_or_not_at_all(both, tmp_path):
    root, folders, _ = both
    with pytest.raises(DataError, match=r"train-000000\.tar: "):
        write_shards(folders, root / "shards", "train")
    again = write_shards(folders, tmp_path / "100%", "train", 1500)
    for shard in again:  # byte by byte the same, in a folder of another name
        assert shard.read_bytes() == (root / "shards" / shard.name).read_bytes()
    gone = folders.only(range(3))
    os.rename(gone.paths[1], f"{gone.paths[1]}.away")
    try:
        with pytest.raises(MissingDataError, match="cannot be read"):
            write_shards(gone, tmp_path / "some", "train")
    finally:
        os.rename(f"{gone.paths[1]}.away", gone.paths[1])
    assert not list((tmp_path / "some").glob("*.tar"))
    assert len(write_shards(gone, tmp_path / "some", "train")) == 1  # over what the first call left
    (tmp_path / "x.mp4").touch()
    with pytest.raises(DataError, match=r"x\.mp4: "):
        write_shards(shards.VideoManifest((str(tmp_path / "x.mp4"),), np.zeros(1, int), ("a",), "here"), tmp_path, "v")


def test_without_the_library_it_says_what_to_install(both, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataError, match=r"shards need webdataset .*pip install 'lookupvivit\[shards\]'"):
        read_shards(both[0] / "shards", "train-*.tar", CLASSES)
