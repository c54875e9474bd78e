"""Images and captions as COCO and as anybody keeps them, what is missing of them, and which caption comes when."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets.captions import CaptionedClips, Captions, read_caption_list, read_karpathy
from data_pipelines.datasets.manifest import on_disk
from data_pipelines.io.errors import DataError, MissingDataError
from data_pipelines.sampling import Sampling
from data_pipelines.transforms.train_transform import TrainTransform


def picture(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(path)


def coco(root, images):
    """A file as Karpathy's, of (folder, name, split, captions) each."""
    entries = [
        {
            "filepath": folder,
            "filename": name,
            "split": split,
            "cocoid": number,
            "imgid": number,
            "sentids": [],
            "sentences": [
                {"raw": text, "tokens": text.split(), "imgid": number, "sentid": i} for i, text in enumerate(captions)
            ],
        }
        for number, (folder, name, split, captions) in enumerate(images)
    ]
    file = root / "dataset_coco.json"
    file.write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return file


def test_karpathys_split(tmp_path):
    file = coco(
        tmp_path,
        [
            ("train2014", "a.jpg", "train", ["A dog.", "Dögs, two"]),
            ("val2014", "b.jpg", "restval", ["A cat."]),
            ("val2014", "c.jpg", "val", ["A bus.", "Buses."]),
            ("val2014", "d.jpg", "test", ["A tree."]),
        ],
    )
    for folder, name in (("train2014", "a.jpg"), ("val2014", "c.jpg")):
        picture(tmp_path / folder / name)
    train = read_karpathy(file, "train", tmp_path)
    assert list(train.images.paths) == [str(tmp_path / "train2014/a.jpg"), str(tmp_path / "val2014/b.jpg")]
    assert [train.of(i) for i in range(2)] == [["A dog.", "Dögs, two"], ["A cat."]]
    assert list(read_karpathy(file, "test", tmp_path).texts()) == ["A tree."]
    present = train.among(on_disk(train.images))
    assert (len(present), present.images.left_out, list(present.texts())) == (1, 1, ["A dog.", "Dögs, two"])

    (tmp_path / "images").mkdir()
    (tmp_path / "train2014").rename(tmp_path / "images" / "train2014")
    moved = read_karpathy(file, "train", tmp_path).images.paths
    assert list(moved) == [str(tmp_path / "images/train2014/a.jpg"), str(tmp_path / "val2014/b.jpg")]
    bare = coco(tmp_path, [("", "a.jpg", "train", ["A dog."])])
    assert read_karpathy(bare, "train", tmp_path).images.paths[0] == str(tmp_path / "images/a.jpg")


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
        ("list.csv", '\ufeffimage,caption,more\nx/a.jpg,"One, two",1\nb.jpg,four,2\nx/a.jpg,three,3\n'),
    ],
)
def test_lists_of_three_kinds_say_the_same(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    found = read_caption_list(file, tmp_path)
    assert list(found.images.paths) == [str(tmp_path / "x/a.jpg"), str(tmp_path / "b.jpg")]
    assert [found.of(0), found.of(1)] == [["One, two", "three"], ["four"]]
    with pytest.raises(MissingDataError, match="none of its 2 videos exists; the first was looked for at"):
        on_disk(found.images)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a\.txt: a list of captions must end in \.json, \.jsonl, \.csv"),
        ("a.json", "[1]", r"a\.json: \[0\]: found 1, must have 'image', a text"),
        ("a.json", '[{"image": "b"}]', r"a\.json: \[0\]: found .*, must have 'captions' or 'caption'"),
        ("a.json", '{"b": [3]}', r"a\.json: 'b': found \[3\], must be a caption or a list of captions"),
        ("a.json", '{"b": []}', r"a\.json: 'b': found no caption"),
        ("a.json", '{"b": [" "]}', r"a\.json: 'b': found an empty caption"),
        ("a.json", "{", r"a\.json: not valid JSON"),
        ("a.json", "[]", r"a\.json: lists no image"),
        ("a.jsonl", '\n{"image": "b"\n', r"a\.jsonl, line 2: not valid JSON"),
        ("a.csv", "file,caption\n", r"a\.csv: found the columns \['file', 'caption'\], must have 'image'"),
        ("a.csv", "image,caption\nb,one, two\n", r"a\.csv, line 2: found .* a caption with commas stands in quotes"),
        ("a.csv", "image,caption\nb\n", r"a\.csv, line 2: found"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_caption_list(tmp_path / name, tmp_path)
    assert "\n" not in str(error.value)


def test_a_wrong_karpathy_file_is_one_line(tmp_path):
    for content, message in (
        ({"annotations": []}, "has no list 'images', must be Karpathy's"),
        ({"images": [{"filename": "a"}]}, r"images\[0\]: found .*must have 'sentences', a list"),
        ({"images": [{"filename": "a", "split": "val", "sentences": [{}]}]}, r"s\[0\]: found {}, must have 'raw'"),
        ({"images": []}, "lists no image of the split val"),
    ):
        (tmp_path / "dataset_coco.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=message):
            read_karpathy(tmp_path / "dataset_coco.json", "val", tmp_path)
    with pytest.raises(MissingDataError, match="no such file"):
        read_karpathy(tmp_path / "other.json", "val", tmp_path)
    with pytest.raises(DataError, match="split: found 'dev', must be one of train, val, test"):
        read_karpathy(tmp_path / "dataset_coco.json", "dev", tmp_path)


def test_captions_are_kept_as_they_are():
    texts = [["a", "", "bé\n"], ["c"], ["日本"] * 4]
    captions = Captions(texts)
    assert list(captions) == texts and captions[-1] == texts[-1] and len(captions) == 3


def test_every_caption_of_an_image_comes_and_a_stand_in_brings_its_own(tmp_path):
    found = {f"{i}.png": [f"{i}{letter}" for letter in "abc"] for i in range(4)}
    for i in range(4):
        picture(tmp_path / f"{i}.png", 10 * i)
    (tmp_path / "2.png").write_bytes(b"broken")
    (tmp_path / "list.json").write_text(json.dumps(found))
    manifest = read_caption_list(tmp_path / "list.json", tmp_path)
    transform = TrainTransform(crop=8, short_side=8, scale_jitter=None, horizontal_flip=0, color_jitter=0, grayscale=0)

    def tokens(text):
        return np.array([int(text[0]), ord(text[1])])

    clips = CaptionedClips(manifest, tokens, Sampling(1, 1), transform, seed=0, timeout=0)
    seen = Counter()
    for epoch in range(40):
        for index in range(4):
            (sample,) = clips[epoch, index]
            image, letter = sample["tokens"].tolist()
            assert int(sample["video"].float().mean()) == 10 * image  # the caption is of the picture that is shown
            assert image == sample["video_index"] and (image == index) == (index != 2)
            assert bool(sample["failed"]) == (index == 2)
            seen[index, letter] += index != 2
            assert clips[epoch, index][0]["tokens"].tolist() == [image, letter]
    assert all(seen[index, ord(letter)] > 4 for index in (0, 1, 3) for letter in "abc")
