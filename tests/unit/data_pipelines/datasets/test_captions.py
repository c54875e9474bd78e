"""Images and captions: Karpathy's format, caption lists, missing images, and the caption that each clip gets."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets.captions import CaptionedClips, Captions, read_caption_list, read_karpathy
from data_pipelines.datasets.manifest import exclude_missing
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.train_transform import TrainTransform


def write_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def write_karpathy(root, images):
    """Write (folder, name, split, captions) in Karpathy's format."""
    entries = []
    for number, (folder, name, split, captions) in enumerate(images):
        sentences = [
            {"raw": text, "tokens": text.split(), "imgid": number, "sentid": i} for i, text in enumerate(captions)
        ]
        entry = {"filepath": folder, "filename": name, "split": split, "sentences": sentences}
        entries.append({**entry, "cocoid": number, "imgid": number, "sentids": []})
    file = root / "dataset_coco.json"
    file.write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return file


def test_karpathy_splits_and_image_folders(tmp_path):
    file = write_karpathy(
        tmp_path,
        [
            ("train2014", "a.jpg", "train", ["A dog.", "Dögs, two"]),
            ("val2014", "b.jpg", "restval", ["A cat."]),
            ("val2014", "c.jpg", "val", ["A bus.", "Buses."]),
            ("val2014", "d.jpg", "test", ["A tree."]),
        ],
    )
    for folder, name in (("train2014", "a.jpg"), ("val2014", "c.jpg")):
        write_image(tmp_path / folder / name)
    train = read_karpathy(file, "train", tmp_path)
    assert list(train.images.paths) == [str(tmp_path / "train2014/a.jpg"), str(tmp_path / "val2014/b.jpg")]
    assert [train.captions_of(i) for i in range(2)] == [["A dog.", "Dögs, two"], ["A cat."]]
    assert list(read_karpathy(file, "test", tmp_path).texts()) == ["A tree."]
    present = train.with_images(exclude_missing(train.images))
    assert (len(present), present.images.num_missing, list(present.texts())) == (1, 1, ["A dog.", "Dögs, two"])

    (tmp_path / "images").mkdir()
    (tmp_path / "train2014").rename(tmp_path / "images" / "train2014")
    moved = read_karpathy(file, "train", tmp_path).images.paths
    assert list(moved) == [str(tmp_path / "images/train2014/a.jpg"), str(tmp_path / "val2014/b.jpg")]
    without_folder = write_karpathy(tmp_path, [("", "a.jpg", "train", ["A dog."])])
    assert read_karpathy(without_folder, "train", tmp_path).images.paths[0] == str(tmp_path / "images/a.jpg")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "list.json",
            '[{"image": "x/a.jpg", "captions": ["One, two", "three"]},{"image": "b.jpg", "caption": "four"}]',
        ),
        ("list.json", '{"x/a.jpg": ["One, two", "three"], "b.jpg": "four"}'),
        (
            "list.jsonl",
            '{"image": "x/a.jpg", "captions": ["One, two"]}\n\n{"image": "b.jpg", "caption": "four"}\n'
            '{"image": "x/../x/a.jpg", "caption": "three"}\n',
        ),
        ("list.csv", '\ufeffimage,caption,more\nx/a.jpg,"One, two",1\nb.jpg,four\nx/a.jpg,three,3\n'),
    ],
)
def test_caption_lists(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    manifest = read_caption_list(file, tmp_path)
    assert list(manifest.images.paths) == [str(tmp_path / "x/a.jpg"), str(tmp_path / "b.jpg")]
    assert [manifest.captions_of(0), manifest.captions_of(1)] == [["One, two", "three"], ["four"]]


@pytest.mark.parametrize(
    ("name", "text", "location"),
    [
        ("a.txt", "", "a.txt"),
        ("a.json", "[1]", "a.json: [0]"),
        ("a.json", '[{"image": "b"}]', "a.json: [0]"),
        ("a.json", '{"b": [3]}', "a.json: 'b'"),
        ("a.json", '{"b": []}', "a.json: 'b'"),
        ("a.json", '{"b": [" "]}', "a.json: 'b'"),
        ("a.json", "{", "a.json"),
        ("a.json", "[]", "a.json"),
        ("a.json", "3", "a.json"),
        ("a.jsonl", '\n{"image": "b"\n', "a.jsonl:2"),
        ("a.jsonl", '{"image": "b", "caption": "a smile \\ud83d"}\n', "a.jsonl:1"),
        ("a.json", '[{"image": "\\ud83d.jpg", "caption": "a"}]', "a.json"),
        ("a.json", '[{"image": "", "caption": "a"}]', "a.json: [0]"),
        ("a.csv", "", "a.csv:1"),
        ("a.csv", "file,caption\n", "a.csv:1"),
        ("a.csv", "image,caption\nb,one, two\n", "a.csv:2"),
        ("a.csv", "image,caption\nb\n", "a.csv:2"),
        ("a.csv", "image,caption\nb,\n", "a.csv:2"),
        ("a.csv", "image,caption\n\n,\n", "a.csv:3"),
    ],
)
def test_an_invalid_list_is_one_line_with_its_location(tmp_path, name, text, location):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_caption_list(tmp_path / name, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / location}: ") and "\n" not in str(caught.value)


KARPATHY_ENTRY = {"filename": "a.jpg", "split": "val", "sentences": [{"raw": "a"}]}


@pytest.mark.parametrize(
    ("content", "location"),
    [
        ({"annotations": []}, ""),
        ({"images": [{"filename": "a"}]}, r"images\[0\]: .*'sentences'"),
        ({"images": [{"filename": "a", "split": "val", "sentences": [{}]}]}, r"images\[0\]\.sentences\[0\]: .*'raw'"),
        ({"images": []}, ".*split val"),
        ({"images": [{**KARPATHY_ENTRY, "filepath": 5}]}, r"images\[0\]: .*'filepath'"),
        ({"images": [{**KARPATHY_ENTRY, "filepath": ["a"]}]}, r"images\[0\]: .*'filepath'"),
        ({"images": [{**KARPATHY_ENTRY, "filename": " "}]}, r"images\[0\]: found an empty path"),
        ({"images": [{**KARPATHY_ENTRY, "filename": "\ud83d.jpg"}]}, "invalid JSON: .*ud83d"),
    ],
)
def test_an_invalid_karpathy_file_is_named(tmp_path, content, location):
    (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"dataset_coco\.json: {location}"):
        read_karpathy(tmp_path / "dataset_coco.json", "val", tmp_path)


def test_a_missing_file_and_an_unknown_split(tmp_path):
    with pytest.raises(MissingDataError, match=r"other\.json"):
        read_karpathy(tmp_path / "other.json", "val", tmp_path)
    with pytest.raises(MissingDataError, match=r"other\.csv"):
        read_caption_list(tmp_path / "other.csv", tmp_path)
    with pytest.raises(DataError, match="split: found 'dev'"):
        read_karpathy(tmp_path / "dataset_coco.json", "dev", tmp_path)


def test_captions_are_stored_unchanged():
    texts = [["a", "", "bé\n"], ["c"], ["日本"] * 4]
    captions = Captions(texts)
    assert list(captions) == texts and captions[-1] == texts[-1] and len(captions) == 3


def test_every_caption_is_drawn_and_belongs_to_the_image_shown(tmp_path):
    """Image 2 cannot be read: its substitute has its own captions."""
    for i in range(4):
        write_image(tmp_path / f"{i}.png", 10 * i)
    (tmp_path / "2.png").write_bytes(b"damaged")
    captions = {f"{i}.png": [f"{i}{letter}" for letter in "abc"] for i in range(4)}
    (tmp_path / "list.json").write_text(json.dumps(captions))
    manifest = read_caption_list(tmp_path / "list.json", tmp_path)
    transform = TrainTransform(crop=8, short_side=8, scale_jitter=None, horizontal_flip=0, color_jitter=0, grayscale=0)

    def tokenize(text):
        return np.array([int(text[0]), ord(text[1])])

    clips = CaptionedClips(manifest, tokenize, Sampling(1, 1), transform, seed=0, timeout=0)
    drawn = Counter()
    for epoch in range(40):
        for index in range(4):
            (sample,) = clips[epoch, index]
            image, letter = sample["tokens"].tolist()
            assert int(sample["video"].float().mean()) == 10 * image
            assert image == sample["video_index"] and (image == index) == (index != 2)
            assert bool(sample["failed"]) == (index == 2)
            drawn[index, letter] += index != 2
            assert clips[epoch, index][0]["tokens"].tolist() == [image, letter]
    assert all(drawn[index, ord(letter)] > 4 for index in (0, 1, 3) for letter in "abc")
