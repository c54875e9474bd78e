"""Lists of videos in the formats users have them in."""

import json

import pytest

from data_pipelines.datasets.kinetics import read_kinetics
from data_pipelines.datasets.manifest import on_disk
from data_pipelines.datasets.something_something import Annotation, read_something_something, write_something_something
from data_pipelines.io.errors import DataError, MissingDataError

PATHS = [
    "abseiling/-3B32lodo2M_000059_000069.mp4",
    "savanna/2017 Videos/Löwe, 日本 3.AVI",
    "/elsewhere/a;b.mp4",
]


@pytest.mark.parametrize("given", [None, "explicit"])
@pytest.mark.parametrize("separator", [" ", ",", ";", "\t"])
def test_kinetics_lists(tmp_path, separator, given):
    lines = [f"{path}{separator}{label}" for path, label in zip(PATHS, (0, 12, 399), strict=True)]
    (tmp_path / "train.csv").write_text("\ufeff\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    manifest = read_kinetics(tmp_path / "train.csv", tmp_path / "videos", separator if given else None)
    assert manifest.labels.tolist() == [0, 12, 399]
    assert manifest.paths == (
        str(tmp_path / "videos" / PATHS[0]),
        str(tmp_path / "videos" / PATHS[1]),
        PATHS[2],
    )
    assert len(manifest.class_names) == 400
    assert manifest.source == str(tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.mp4 0\nb.mp4 dancing\n", 2),
        ("a.mp4 0\n\nb.mp4 -1\n", 3),
        ("label,youtube_id,time_start\n", 1),
        ("a.mp4 0\n7\n", 2),
        ("a.mp4 1.5\n", 1),
        ("a.mp4 0\nb.mp4 3\n", 2),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, line):
    (tmp_path / "val.csv").write_text(text)
    with pytest.raises(DataError, match=rf"val\.csv:{line}: "):
        read_kinetics(tmp_path / "val.csv", tmp_path, class_names=["x", "y", "z"])


def test_missing_kinetics(tmp_path):
    with pytest.raises(MissingDataError, match=r"train\.csv: .*'path label'.*'Preparing Kinetics-400'"):
        read_kinetics(tmp_path / "train.csv", tmp_path)
    (tmp_path / "train.csv").write_text("\n")
    with pytest.raises(DataError, match="lists no video"):
        read_kinetics(tmp_path / "train.csv", tmp_path)


def test_missing_files_are_counted(tmp_path):
    (tmp_path / "train.csv").write_text("x/a.mp4 0\nx/b.mp4 1\ny/c.mp4 2\n")
    manifest = read_kinetics(tmp_path / "train.csv", tmp_path)
    with pytest.raises(MissingDataError, match=r"none of its 3 videos .*x/a\.mp4"):
        on_disk(manifest)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "b.mp4").touch()
    assert manifest.missing() == [0, 2]
    present = on_disk(manifest)
    assert (present.paths, present.labels.tolist()) == ((manifest.paths[1],), [1])
    assert present.class_names == manifest.class_names


NAMES = ("Holding something", "Pushing something from left to right", "Zooming in on something")
ENTRIES = [
    {"id": "74225", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]},
    {
        "id": "9",
        "label": "zooming in on cup",
        "template": "Zooming in on [something]",
        "placeholders": ["cup"],
    },
]


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
@pytest.mark.parametrize("folder", ["", "labels", "annotations"])
@pytest.mark.parametrize("videos", ["20bn-something-something-v2", "videos"])
def test_something_something_layouts(tmp_path, folder, prefix, videos):
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


def test_something_something_is_read_as_written(tmp_path):
    entries = [Annotation(**entry) for entry in ENTRIES]
    write_something_something(
        tmp_path, {"train": entries, "validation": entries[:1]}, [*NAMES[:2], "Zooming in on [something]"]
    )
    (tmp_path / "videos").mkdir()
    train = read_something_something(tmp_path, "train")
    assert train.class_names == NAMES and train.labels.tolist() == [0, 2]
    assert len(read_something_something(tmp_path, "validation")) == 1
    assert json.loads((tmp_path / "labels" / "train.json").read_text()) == ENTRIES
    assert sorted(p.name for p in (tmp_path / "labels").iterdir()) == [
        "labels.json",
        "train.json",
        "validation.json",
    ]


def test_something_something_pictures_where_there_is_no_video(tmp_path):
    entries = [{"id": str(number), "template": NAMES[0]} for number in range(4)]
    (tmp_path / "labels.json").write_text(json.dumps({NAMES[0]: "0"}))
    (tmp_path / "train.json").write_text(json.dumps({"labels": entries}))
    for name in ("0", "1", "2"):
        (tmp_path / "videos" / name).mkdir(parents=True)
    for name in ("1.mp4", "2.mp4", "2.webm", "3"):  # the last is a file, and so no folder of pictures
        (tmp_path / "videos" / name).touch()
    manifest = read_something_something(tmp_path, "train")
    assert [path.rpartition("/")[2] for path in manifest.paths] == ["0", "1.mp4", "2.webm", "3.webm"]
    assert manifest.missing() == [3]


def test_something_something_errors(tmp_path):
    section = r"docs/DATA.md, section 'Preparing Something-Something V2'"
    with pytest.raises(MissingDataError, match=rf"labels\.json.*{section}"):
        read_something_something(tmp_path, "train")
    write_something_something(tmp_path, {"train": [Annotation("42", "x", "Eating [something]", ["x"])]}, NAMES)
    with pytest.raises(MissingDataError, match=rf"validation\.json.*{section}"):
        read_something_something(tmp_path, "validation")
    with pytest.raises(MissingDataError, match=rf"no folder .*{section}"):
        read_something_something(tmp_path, "train")
    (tmp_path / "videos").mkdir()
    with pytest.raises(DataError, match=r"video 42 has template 'Eating \[something\]'"):
        read_something_something(tmp_path, "train")
    with pytest.raises(DataError, match=r"'test' is none of train, validation; .* no labels"):
        read_something_something(tmp_path, "test")
    for text, message in (
        ('[{"id": "1"}]', "'id' and 'template'; .*a test set, which has no labels"),
        ('{"videos": []}', "one under 'labels'"),
        ('"no"', "expected a JSON list or dict; found str"),
    ):
        (tmp_path / "labels" / "validation.json").write_text(text)
        with pytest.raises(DataError, match=rf"validation\.json: .*{message}"):
            read_something_something(tmp_path, "validation")
    (tmp_path / "labels" / "labels.json").write_text('{"Holding something": "1"}')
    with pytest.raises(DataError, match="class ids 0 to 0"):
        read_something_something(tmp_path, "train")
