"""Lists of videos: 'path label' lines, and the official CSV with the layouts in which its videos are distributed."""

import csv

import pytest

from data_pipelines.datasets.class_names import class_names
from data_pipelines.datasets.kinetics import read_csv_classes, read_kinetics
from data_pipelines.datasets.manifest import exclude_missing
from data_pipelines.io.errors import DataError, MissingDataError

PATHS = ["abseiling/-3B32lodo2M_000059_000069.mp4", "savanna/2017 Videos/Löwe, 日本 3.AVI", "/elsewhere/a;b.mp4"]
CLASSES = class_names("kinetics400")


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("separator", [" ", ",", ";", "\t"])
def test_path_lists(tmp_path, separator, explicit):
    lines = [f"{path}{separator}{label}" for path, label in zip(PATHS, (0, 12, 399), strict=True)]
    (tmp_path / "train.csv").write_text("\ufeff\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    manifest = read_kinetics(tmp_path / "train.csv", tmp_path / "videos", separator if explicit else None)
    assert manifest.labels.tolist() == [0, 12, 399]
    assert manifest.paths == [*(str(tmp_path / "videos" / path) for path in PATHS[:2]), PATHS[2]]
    assert manifest.class_names == tuple(map(str, range(400)))
    assert manifest.source == str(tmp_path / "train.csv")
    assert read_csv_classes(tmp_path / "train.csv") is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.mp4 0\nb.mp4 dancing\n", 2),
        ("a.mp4 0\n\nb.mp4 -1\n", 3),
        ("label,youtube_id,time_start\n", 1),
        ("a.mp4 0\n7\n", 2),
        ("a.mp4 1.5\n", 1),
        (f"a.mp4 0\nb.mp4 {'9' * 5000}\n", 2),
        ("a.mp4 0\nb.mp4 3\n", 2),
    ],
)
def test_an_invalid_line_is_named(tmp_path, text, line):
    (tmp_path / "val.csv").write_text(text)
    with pytest.raises(DataError, match=rf"val\.csv:{line}: found"):
        read_kinetics(tmp_path / "val.csv", tmp_path, class_names=["x", "y", "z"])


def test_missing_and_empty_lists(tmp_path):
    with pytest.raises(MissingDataError, match=r"train\.csv: .*docs/DATA\.md"):
        read_kinetics(tmp_path / "train.csv", tmp_path)
    (tmp_path / "train.csv").write_text("\n")
    with pytest.raises(DataError, match=r"train\.csv: found no videos"):
        read_kinetics(tmp_path / "train.csv", tmp_path)


# The official CSV

HEADER = ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
ROWS = [  # label, id, start, end; some ids contain _ and -
    ("abseiling", "-3B32lodo2M", "59", "69"),
    ("passing American football (not in game)", "__NrybzYzUg", "415", "425"),
    ("massaging person's head", "_a_b_c_d_e_", "0", "10"),
    ("zumba", "zzzzzzzzzz-", "7.0", "17.0"),
]
STEMS = [
    "-3B32lodo2M_000059_000069",
    "__NrybzYzUg_000415_000425",
    "_a_b_c_d_e__000000_000010",
    "zzzzzzzzzz-_000007_000017",
]
IDS = [0, 210 - 1, 197 - 1, 399]  # line numbers in the class list, which test_class_names compares with torchvision's


def write_csv(path, rows=ROWS, split="train", columns=HEADER, quoting=csv.QUOTE_MINIMAL):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, quoting=quoting)
        writer.writerow(columns)
        writer.writerows([*row, split, "0"][: len(columns)] for row in rows)
    return path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


@pytest.mark.parametrize(("columns", "quoting"), [(HEADER, csv.QUOTE_MINIMAL), (HEADER[:-1], csv.QUOTE_ALL)])
@pytest.mark.parametrize(
    ("split", "layout"),
    [
        ("train", "train/{stem}.mp4"),
        ("val", "val/{stem}.mkv"),
        ("validate", "val/{stem}.MP4"),
        ("test", "test/{stem}.webm"),
        ("train", "videos_train/{underscored}/{stem}.mp4"),
        ("val", "videos_val/{label}/{stem}.mp4"),
        ("validation", "validation/{label}/{stem}.mp4"),
        ("train", "{label}/{stem}.mp4"),
        ("train", "train/{underscored}/{id}.mp4"),
        ("train", "{id}.mp4"),
    ],
)
def test_videos_of_the_csv_are_found(tmp_path, columns, quoting, split, layout):
    file = write_csv(tmp_path / "annotations" / "list.csv", split=split, columns=columns, quoting=quoting)
    videos = []
    for (label, video_id, *_), stem in zip(ROWS, STEMS, strict=True):
        path = layout.format(label=label, underscored=label.replace(" ", "_"), stem=stem, id=video_id)
        videos.append(touch(tmp_path / path))
    touch(tmp_path / "train" / "abseiling" / "notes.txt")
    touch(tmp_path / "val" / "another-vid_000000_000010.mp4")
    manifest = read_kinetics(file, tmp_path, class_names=CLASSES)
    assert manifest.paths == videos and manifest.missing() == []
    assert manifest.labels.tolist() == IDS and manifest.class_names == CLASSES


def test_precedence_of_videos_and_paths_of_missing_ones(tmp_path):
    file = write_csv(tmp_path / "val.csv", split="validate")
    own_split = touch(tmp_path / "val" / f"{STEMS[0]}.mp4")
    touch(tmp_path / "train" / f"{STEMS[0]}.mp4")
    touch(tmp_path / "val" / f"{STEMS[1]}.mp4")
    replacement = touch(tmp_path / "replacement" / "replacement_for_corrupted_k400" / "__NrybzYzUg_000001_000002.mp4")
    touch(tmp_path / "val" / "_a_b_c_d_e__000100_000110.mp4")  # another ten seconds of that video
    manifest = read_kinetics(file, tmp_path)
    missing = [str(tmp_path / "val" / f"{stem}.mp4") for stem in STEMS[2:]]
    assert manifest.paths == [own_split, replacement, *missing]
    present = exclude_missing(manifest)
    assert (len(present), present.num_missing) == (2, 2)


def test_classes_of_the_csv(tmp_path):
    """Alphabetical by default; labels match class names irrespective of case and underscores."""
    file = write_csv(tmp_path / "train.csv", reversed(ROWS))
    manifest = read_kinetics(file, tmp_path)
    assert manifest.class_names == read_csv_classes(file) == tuple(sorted(row[0] for row in ROWS))
    assert manifest.labels.tolist() == [3, 1, 2, 0]
    respelled = write_csv(tmp_path / "val.csv", [("Passing_American_Football_(not_in_game)", *ROWS[1][1:])])
    assert read_kinetics(respelled, tmp_path, class_names=manifest.class_names).labels.tolist() == [2]


VALID_ROW = "zumba,zzzzzzzzzz-,7,17,train"


@pytest.mark.parametrize(
    ("header", "row", "location", "found"),
    [
        ("youtube_id,time_start,time_end,split", "", "list.csv:1", "youtube_id,time_start,time_end,split"),
        ("label,youtube_id,time_start,split", "", "list.csv:1", "label,youtube_id,time_start,split"),
        (None, "zumba,zzzzzzzzzz-,7,17", "list.csv:4", "4 values, expected 5"),
        (None, "zumba,zzzzzzzzzz-,7,17,train,0", "list.csv:4", "6 values, expected 5"),
        (None, "zumba,zzzz,7,17,train", "list.csv:4", "'zzzz'"),
        (None, "zumba,zzzzzzzzzz-,7,17,extra", "list.csv:4", "'extra'"),
        (None, "zumba,zzzzzzzzzz-,nan,17,train", "list.csv:4", "'nan'"),
        (None, "zumba,zzzzzzzzzz-,7,-1,train", "list.csv:4", "'-1'"),
        (None, "jumba,zzzzzzzzzz-,7,17,train", "list.csv:4", "'jumba'"),
        (None, VALID_ROW, "list.csv", "zzzzzzzzzz-_000007_000017.mp4"),  # listed twice
    ],
)
def test_an_invalid_row_is_named(tmp_path, header, row, location, found):
    file = tmp_path / "list.csv"
    file.write_text("\n".join([header or ",".join(HEADER[:-1]), "", VALID_ROW, row]))
    with pytest.raises(DataError) as caught:
        read_kinetics(file, tmp_path, class_names=CLASSES)
    assert f"{location}: " in str(caught.value) and found in str(caught.value)


def test_labels_follow_the_names_of_a_long_csv(tmp_path):
    names = class_names("kinetics700")
    rows = [(names[i % 700], f"{i:011d}", i % 300, i % 300 + 10) for i in range(7_000)]
    file = write_csv(tmp_path / "train.csv", rows)
    manifest = read_kinetics(file, tmp_path, class_names=names)
    assert manifest.labels.tolist() == [*range(700)] * 10


def test_a_label_that_would_need_millions_of_classes_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 99999999999\n")
    with pytest.raises(DataError, match=r"train\.csv:2: found the label 99999999999"):
        read_kinetics(tmp_path / "train.csv", tmp_path)
