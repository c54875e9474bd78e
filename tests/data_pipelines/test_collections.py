"""Collections as users have them: official files, archives' layouts, class folders."""

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.action_sets import read_hmdb51, read_ucf101
from data_pipelines.benchmark import resident
from data_pipelines.classes import class_names
from data_pipelines.errors import DataError, MissingDataError
from data_pipelines.folders import read_folders
from data_pipelines.kinetics import read_kinetics
from data_pipelines.manifest import PathList, VideoManifest, on_disk
from data_pipelines.something_something import read_something_something, write_something_something


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("data_set", "count", "some"),
    [
        ("kinetics400", 400, {0: "abseiling", 399: "zumba", 6: "arm wrestling"}),
        ("kinetics600", 600, {0: "abseiling", 599: "zumba"}),
        ("kinetics700", 700, {0: "abseiling", 699: "zumba"}),
        ("something_something_v2", 174, {86: "Pulling something from left to right",
                                         93: "Pushing something from left to right"}),
        ("ucf101", 101, {0: "ApplyEyeMakeup", 100: "YoYo", 36: "HandstandPushups"}),
        ("hmdb51", 51, {0: "brush_hair", 50: "wave"}),
    ],
)  # fmt: skip
def test_class_lists_have_the_official_ids(data_set, count, some):
    names = class_names(data_set)
    assert len(names) == len(set(names)) == count
    if data_set != "ucf101":  # whose list has its own order in one place
        assert list(names) == sorted(names)
    assert {index: names[index] for index in some} == some


HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
ROWS = (
    'abseiling,"-3B32lodo2M",59,69,train,0\n'
    '"air drumming",_a-b_c-d_e-,2.0,12.0,train,0\n'
    "passing American football (in game),R6llTwEh07w,0,10,train,0\n"
    "zumba,zzzzzzzzzz_,4,14,train,1\n"
)


@pytest.mark.parametrize("layout", ["flat", "spaces", "underscores", "ids"])
def test_the_official_kinetics_csv_finds_its_videos_in_every_layout(tmp_path, layout):
    (tmp_path / "train.csv").write_text(HEADER + ROWS, encoding="utf-8")
    names = {
        "flat": ["train/-3B32lodo2M_000059_000069.mp4", "train/_a-b_c-d_e-_000002_000012.mkv",
                 "train/R6llTwEh07w_000000_000010.mp4"],
        "spaces": ["train/abseiling/-3B32lodo2M_000059_000069.mp4", "train/air drumming/_a-b_c-d_e-_000002_000012.mp4",
                   "train/passing American football (in game)/R6llTwEh07w_000000_000010.mp4"],
        "underscores": ["videos_train/abseiling/-3B32lodo2M_000059_000069.mp4",
                        "videos_train/air_drumming/_a-b_c-d_e-_000002_000012.mp4",
                        "videos_train/passing_American_football_(in_game)/R6llTwEh07w_000000_000010.mp4"],
        "ids": ["abseiling/-3B32lodo2M.mp4", "x/_a-b_c-d_e-.webm", "R6llTwEh07w.mp4"],
    }[layout]  # fmt: skip
    touch(tmp_path, *names)
    manifest = read_kinetics(tmp_path / "train.csv", tmp_path, class_names=class_names("kinetics400"))
    assert list(manifest.paths[:3]) == [str(tmp_path / name) for name in names]
    assert manifest.paths[3] == str(tmp_path / "train" / "zzzzzzzzzz__000004_000014.mp4")
    assert [manifest.class_names[label] for label in manifest.labels] == [
        "abseiling", "air drumming", "passing American football (in game)", "zumba",
    ]  # fmt: skip
    present = on_disk(manifest)
    assert (len(present), present.left_out) == (3, 1)


def test_cvdfs_replacements_win(tmp_path):
    (tmp_path / "train.csv").write_text(HEADER.replace(",is_cc", "") + "abseiling,-3B32lodo2M,59,69,train\n")
    touch(tmp_path, "train/-3B32lodo2M_000059_000069.mp4", "replacement/replacement_for_corrupted_k400/-3B32lodo2M.mp4")
    manifest = read_kinetics(tmp_path / "train.csv", tmp_path)
    assert list(manifest.paths) == [str(tmp_path / "replacement/replacement_for_corrupted_k400/-3B32lodo2M.mp4")]
    assert manifest.class_names == ("abseiling",)


def test_a_row_that_makes_no_sense_is_named(tmp_path):
    (tmp_path / "train.csv").write_text(HEADER + "abseiling,-3B32lodo2M,soon,later,train,0\n")
    with pytest.raises(DataError, match=r"train\.csv: row 2 is no video id with a start and an end"):
        read_kinetics(tmp_path / "train.csv", tmp_path)
    (tmp_path / "test.csv").write_text("label,youtube_id,time_start,time_end,split\n,-3B32lodo2M,59,69,test\n")
    with pytest.raises(DataError, match=r"row 2 has the label '', .* a test list has no labels"):
        read_kinetics(tmp_path / "test.csv", tmp_path, class_names=class_names("kinetics400"))


def test_class_folders_of_videos_pictures_and_frames(tmp_path):
    touch(tmp_path, "train/Löwe/a 1.MP4", "train/Löwe/.hidden.mp4", "train/Löwe/notes.txt", "train/bär/b.webm",
          "train/bär/pic.JPEG", "train/bär/frames/1.jpg", "validation/bär/c.avi")  # fmt: skip
    train, val = read_folders(tmp_path, "train"), read_folders(tmp_path, "val")
    assert train.class_names == val.class_names == ("Löwe", "bär")
    assert [os.path.relpath(path, tmp_path / "train") for path in train.paths] == [
        "Löwe/a 1.MP4", "bär/b.webm", "bär/frames", "bär/pic.JPEG",
    ]  # fmt: skip
    assert train.labels.tolist() == [0, 1, 1, 1] and val.labels.tolist() == [1]
    assert "1 files are neither videos nor pictures" in train.source and len(on_disk(train)) == 4
    touch(tmp_path, "validation/wolf/d.mp4")
    with pytest.raises(DataError, match="class 'wolf'"):
        read_folders(tmp_path, "val")
    with pytest.raises(MissingDataError, match="no folder train"):
        read_folders(tmp_path / "validation", "train")


def test_ucf101(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    lines = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\nYoYo/v_YoYo_g25_c05.avi 101\n"
    (lists / "trainlist02.txt").write_text(lines)
    (lists / "testlist02.txt").write_text("YoYo/v_YoYo_g01_c01.avi\n")
    touch(tmp_path, "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "UCF-101/YoYo/v_YoYo_g25_c05.avi")
    train = read_ucf101(tmp_path, "train", fold=2)
    assert train.labels.tolist() == [0, 100] and not train.missing()
    assert train.paths[1] == str(tmp_path / "UCF-101/YoYo/v_YoYo_g25_c05.avi")
    assert read_ucf101(tmp_path, "val", fold=2).labels.tolist() == [100]
    with pytest.raises(MissingDataError, match=r"trainlist01\.txt"):
        read_ucf101(tmp_path, "train", fold=1)


def test_hmdb51(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for name in class_names("hmdb51"):
        text = "".join(f"{name} {mark}.avi {mark} \n" for mark in (0, 1, 2))
        (lists / f"{name}_test_split1.txt").write_text(text)
    touch(tmp_path, "wave/wave 1.avi", "videos/cartwheel/cartwheel 2.avi")
    train, val = read_hmdb51(tmp_path, "train"), read_hmdb51(tmp_path, "val")
    assert len(train) == len(val) == 51 and train.labels.tolist() == list(range(51))
    assert train.paths[50] == str(tmp_path / "wave/wave 1.avi")
    assert val.paths[1] == str(tmp_path / "videos/cartwheel/cartwheel 2.avi")
    assert len(val.missing()) == 50


def test_something_something_as_extracted_frames(tmp_path):
    videos = {"train": "7", "validation": "8"}
    entries = {split: [(n, "Holding a pen", "Holding [something]", ["a pen"])] for split, n in videos.items()}
    write_something_something(tmp_path, entries, ["Holding [something]"])
    touch(tmp_path, "frames/7/img_00001.jpg", "frames/8/img_00001.jpg")
    assert list(read_something_something(tmp_path, "train").paths) == [str(tmp_path / "frames" / "7")]
    touch(tmp_path, "frames/8.mp4")
    assert list(read_something_something(tmp_path, "validation").paths) == [str(tmp_path / "frames" / "8.mp4")]


def test_path_list_is_a_sequence_of_paths():
    paths = ["", "a/b.mp4", "naïve näme, 日本 #1.mp4", "\udcff.mp4"]  # the last: a file name that is not UTF-8
    lists = PathList(paths)
    assert list(lists) == paths and lists == paths and lists[-1] == paths[-1] and list(lists[1:3]) == paths[1:3]
    assert lists.take([2, 0]) == [paths[2], paths[0]] and pickle.loads(pickle.dumps(lists)) == paths
    with pytest.raises(IndexError):
        lists[4]


def test_a_quarter_of_a_million_videos_cost_little(tmp_path):
    line = "videos_train/a_class_with_a_long_name_{}/R6llTwEh{:07d}_000001_000011.mp4 {}\n"
    (tmp_path / "train.csv").write_text("".join(line.format(i % 400, i, i % 400) for i in range(240_000)))
    before, begun = resident(os.getpid()), time.perf_counter()
    manifest = read_kinetics(tmp_path / "train.csv", tmp_path)
    assert time.perf_counter() - begun < 4  # 0.7 s measured; other tests may run beside
    assert resident(os.getpid()) - before < 150
    assert len(manifest) == 240_000 and manifest.labels[-1] == 239_999 % 400

    other, ours = os.pipe()
    child = os.fork()  # as a loader forks a worker, which then reads every path
    if not child:
        total = sum(len(path) for path in manifest.paths)
        private = sum(int(row.split()[1]) for row in Path("/proc/self/smaps_rollup").read_text().splitlines()
                      if row.startswith("Private_Dirty"))  # fmt: skip
        os.write(ours, f"{total} {private}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    total, private = map(int, os.read(other, 100).split())
    assert total == sum(map(len, manifest.paths)) and private < 20 * 1024


def test_a_manifest_of_arrays_is_checked():
    with pytest.raises(DataError, match=r"lists a\.mp4 more than once"):
        VideoManifest(["a.mp4", "b.mp4", "a.mp4"], np.zeros(3, int), ("x",), "made here")
