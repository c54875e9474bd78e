"""The official Kinetics CSV, and its videos in every layout that they are handed round in."""

import csv
import time

import pytest

from data_pipelines.datasets.class_names import class_names
from data_pipelines.datasets.kinetics import listed_classes, read_kinetics
from data_pipelines.datasets.manifest import on_disk
from data_pipelines.io.errors import DataError

HEADER = ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
ROWS = [  # label, id, start, end: ids with _ and -, one the beginning of another's file name but for its last letter
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
IDS = [0, 210 - 1, 197 - 1, 399]  # lines of the list that torchvision's weights confirm, counted from 0


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


def underscores(label):
    return label.replace(" ", "_")


@pytest.mark.parametrize("columns", [HEADER, HEADER[:-1]], ids=["is_cc", "no is_cc"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    ("split", "layout"),
    [
        ("train", lambda label, stem: f"train/{stem}.mp4"),
        ("val", lambda label, stem: f"val/{stem}.mkv"),
        ("validate", lambda label, stem: f"val/{stem}.MP4"),
        ("test", lambda label, stem: f"test/{stem}.webm"),
        ("train", lambda label, stem: f"videos_train/{underscores(label)}/{stem}.mp4"),
        ("val", lambda label, stem: f"videos_val/{label}/{stem}.mp4"),
        ("validation", lambda label, stem: f"validation/{label}/{stem}.mp4"),
        ("train", lambda label, stem: f"{label}/{stem}.mp4"),
        ("train", lambda label, stem: f"train/{underscores(label)}/{stem[:11]}.mp4"),
        ("train", lambda label, stem: f"{stem[:11]}.mp4"),
    ],
)
def test_videos_are_found(tmp_path, columns, quoting, split, layout):
    root = tmp_path / "kinetics400"
    file = write_csv(root / "annotations" / "list.csv", split=split, columns=columns, quoting=quoting)
    videos = [touch(root / layout(row[0], stem)) for row, stem in zip(ROWS, STEMS, strict=True)]
    touch(root / "train" / "abseiling" / "notes.txt")
    touch(root / "val" / "another-vid_000000_000010.mp4")
    manifest = read_kinetics(file, root, class_names=class_names("kinetics400"))
    assert manifest.paths == videos and manifest.missing() == []
    assert manifest.labels.tolist() == IDS and manifest.class_names == class_names("kinetics400")


def test_replacements_override_and_absent_videos_are_missing_from_cvdfs_layout(tmp_path):
    file = write_csv(tmp_path / "val.csv", split="validate")
    kept = touch(tmp_path / "val" / f"{STEMS[0]}.mp4")
    touch(tmp_path / "train" / f"{STEMS[0]}.mp4")  # its own split's folder is right
    touch(tmp_path / "val" / f"{STEMS[1]}.mp4")
    better = touch(tmp_path / "replacement" / "replacement_for_corrupted_k400" / "__NrybzYzUg_000001_000002.mp4")
    touch(tmp_path / "val" / "_a_b_c_d_e__000100_000110.mp4")  # other ten seconds of that video
    manifest = read_kinetics(file, tmp_path)
    absent = [str(tmp_path / "val" / f"{stem}.mp4") for stem in STEMS[2:]]
    assert manifest.paths == [kept, better, *absent]
    present = on_disk(manifest)
    assert (len(present), present.left_out) == (2, 2)


def test_classes_of_a_subset_are_the_lists_own_in_alphabetical_order(tmp_path):
    file = write_csv(tmp_path / "train.csv", reversed(ROWS))
    manifest = read_kinetics(file, tmp_path)
    assert manifest.class_names == listed_classes(file) == tuple(sorted(row[0] for row in ROWS))
    assert manifest.labels.tolist() == [3, 1, 2, 0]
    spelled = write_csv(tmp_path / "val.csv", [("Passing_American_Football_(not_in_game)", *ROWS[1][1:])])
    assert read_kinetics(spelled, tmp_path, class_names=manifest.class_names).labels.tolist() == [2]
    (tmp_path / "list.txt").write_text("a.mp4 0\n")
    assert listed_classes(tmp_path / "list.txt") is None


GOOD = "zumba,zzzzzzzzzz-,7,17,train"


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("youtube_id,time_start,time_end,split", "", r"list\.csv:1: .*a test set without labels"),
        ("label,youtube_id,time_start,split", "", r"list\.csv:1: found the columns .*must have .*time_end"),
        (None, "zumba,zzzzzzzzzz-,7,17", r"list\.csv:4: found 4 values, must be 5"),
        (None, "zumba,zzzz,7,17,train", r"list\.csv:4: .*youtube_id 'zzzz'.*11 characters"),
        (None, "zumba,zzzzzzzzzz-,7,17,extra", r"list\.csv:4: .*split 'extra'.*one of train, val"),
        (None, "zumba,zzzzzzzzzz-,nan,17,train", r"list\.csv:4: found the time 'nan'"),
        (None, "zumba,zzzzzzzzzz-,7,-1,train", r"list\.csv:4: found the time '-1'"),
        (None, "jumba,zzzzzzzzzz-,7,17,train", r"list\.csv:4: label 'jumba' is none of the 400 .*abseiling \.\. zumba"),
        (None, GOOD, r"zzzzzzzzzz-_000007_000017\.mp4 more than once"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, header, row, message):
    file = tmp_path / "list.csv"
    file.write_text("\n".join([header or ",".join(HEADER[:-1]), "", GOOD, row]))
    with pytest.raises(DataError, match=message):
        read_kinetics(file, tmp_path, class_names=class_names("kinetics400"))


def test_the_whole_of_kinetics_is_read_fast(tmp_path):
    names = class_names("kinetics700")
    rows = [(names[i % 700], f"{i:011d}", i % 300, i % 300 + 10) for i in range(240_000)]
    file = write_csv(tmp_path / "train.csv", rows)
    start = time.process_time()
    manifest = read_kinetics(file, tmp_path, class_names=names)
    assert time.process_time() - start < 8  # about 2 s, and longer where others share the caches
    assert manifest.labels[:1400].tolist() == [*range(700), *range(700)]
