"""Something-Something's layout: variants of its folders and files, annotations as they are written, errors."""

import json

import pytest

from data_pipelines.datasets.something_something import (
    Annotation,
    read_something_something,
    write_something_something,
)
from data_pipelines.io.errors import DataError, MissingDataError

NAMES = ("Holding something", "Pushing something from left to right", "Zooming in on something")
ENTRIES = [
    {"id": "74225", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]},
    {"id": "9", "label": "zooming in on cup", "template": "Zooming in on [something]", "placeholders": ["cup"]},
]


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
@pytest.mark.parametrize("folder", ["", "labels", "annotations"])
@pytest.mark.parametrize("videos", ["20bn-something-something-v2", "videos"])
def test_layouts(tmp_path, folder, prefix, videos):
    (tmp_path / folder).mkdir(exist_ok=True)
    ids = {name: str(i) for i, name in reversed(list(enumerate(NAMES)))}  # out of order, values are strings
    (tmp_path / folder / f"{prefix}labels.json").write_text(json.dumps(ids))
    (tmp_path / folder / f"{prefix}validation.json").write_text(json.dumps(ENTRIES))
    (tmp_path / videos).mkdir()
    (tmp_path / videos / "74225.mp4").touch()
    manifest = read_something_something(tmp_path, "validation")
    assert manifest.class_names == NAMES
    assert manifest.labels.tolist() == [0, 2]
    assert manifest.paths == (str(tmp_path / videos / "74225.mp4"), str(tmp_path / videos / "9.webm"))
    assert manifest.missing() == [1]


def test_written_annotations_are_read(tmp_path):
    annotations = [Annotation(**entry) for entry in ENTRIES]
    templates = [*NAMES[:2], "Zooming in on [something]"]
    write_something_something(tmp_path, {"train": annotations, "validation": annotations[:1]}, templates)
    (tmp_path / "videos").mkdir()
    train = read_something_something(tmp_path, "train")
    assert train.class_names == NAMES and train.labels.tolist() == [0, 2]
    assert len(read_something_something(tmp_path, "validation")) == 1
    assert json.loads((tmp_path / "labels" / "train.json").read_text()) == ENTRIES
    files = sorted(file.name for file in (tmp_path / "labels").iterdir())
    assert files == ["labels.json", "train.json", "validation.json"]


def test_webm_precedes_mp4_precedes_images(tmp_path):
    entries = [{"id": str(number), "template": NAMES[0]} for number in range(4)]
    (tmp_path / "labels.json").write_text(json.dumps({NAMES[0]: "0"}))
    (tmp_path / "train.json").write_text(json.dumps({"labels": entries}))
    for name in ("0", "1", "2"):
        (tmp_path / "videos" / name).mkdir(parents=True)
    for name in ("1.mp4", "2.mp4", "2.webm", "3"):  # 3 is a file, not a folder of images
        (tmp_path / "videos" / name).touch()
    manifest = read_something_something(tmp_path, "train")
    assert [path.rpartition("/")[2] for path in manifest.paths] == ["0", "1.mp4", "2.webm", "3.webm"]
    assert manifest.missing() == [3]


def test_missing_files(tmp_path):
    for missing, split in (("labels.json", "train"), ("validation.json", "validation"), ("videos", "train")):
        with pytest.raises(MissingDataError, match=rf"{tmp_path}: .*{missing}.*docs/DATA\.md"):
            read_something_something(tmp_path, split)
        write_something_something(tmp_path, {"train": []}, NAMES)


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("validation", [{"id": "42", "template": "Eating [something]"}], r"video 42: .*Eating \[something\]"),
        ("validation", [{"id": "1"}], "'id': '1'"),
        ("validation", {"videos": []}, "'labels'"),
        ("validation", "no", "'no'"),
        ("labels", {"Holding something": "1"}, r"\[1\], expected 0 to 0"),
        ("labels", {"Holding something": "x"}, "class ids"),
        ("labels", {"Holding something": float("inf")}, "class ids"),
    ],
)
def test_invalid_annotations(tmp_path, file, content, found):
    write_something_something(tmp_path, {"validation": []}, NAMES)
    (tmp_path / "videos").mkdir()
    (tmp_path / "labels" / f"{file}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{file}\.json: .*{found}"):
        read_something_something(tmp_path, "validation")


def test_the_test_split_is_rejected(tmp_path):
    with pytest.raises(DataError, match="split: found 'test'"):
        read_something_something(tmp_path, "test")
