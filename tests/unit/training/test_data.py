"""From a configuration to the videos of a split, and to what models are fed."""

import json

import pytest
import torch
from support.videos import encode

from data_pipelines.datasets.class_names import class_names
from data_pipelines.io.errors import DataError, MissingDataError
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config
from lookupvivit.training.classification import Classification
from lookupvivit.training.data import multi_view_dataset, train_dataset, train_transform
from lookupvivit.training.distributed import World
from lookupvivit.training.manifests import READERS, exclude_absent, listed_videos, read_manifest

SINGLE = World(0, 1, torch.device("cpu"))
CSV = "label,youtube_id,time_start,time_end,split\n"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def kinetics(root, *overrides):
    return load_config("configs/k400_9x9x8.yaml", [f"data.root={root}", *overrides])


@pytest.fixture
def two_classes(tmp_path):
    """A Kinetics folder with two training videos and one validation video, listed in the official CSV layout."""
    for name in ("aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"):
        touch(tmp_path / f"{name}.mp4")
    (tmp_path / "train.csv").write_text(f"{CSV}yoga,aaaaaaaaaaa,7,17,train\nabseiling,bbbbbbbbbbb,7,17,train\n")
    (tmp_path / "val.csv").write_text(f"{CSV}yoga,ccccccccccc,7,17,val\n")
    return tmp_path


# Kinetics


def test_kinetics_400_has_the_official_names_in_both_list_layouts(tmp_path, capsys):
    touch(tmp_path / "val" / "zzzzzzzzzz-_000007_000017.mp4")
    (tmp_path / "train.csv").write_text("val/zzzzzzzzzz-_000007_000017.mp4 399\n")
    (tmp_path / "val.csv").write_text(f"{CSV}zumba,zzzzzzzzzz-,7,17,val\nyoga,zzzzzzzzzz_,7,17,val\n")
    train_set, val_set = (read_manifest(kinetics(tmp_path), split, SINGLE) for split in ("train", "val"))
    assert train_set.paths == val_set.paths
    assert train_set.labels.tolist() == val_set.labels.tolist() == [399]
    assert train_set.class_names == val_set.class_names == class_names("kinetics400")
    printed = capsys.readouterr().out
    assert printed.count("kinetics400, 400 names, abseiling .. zumba") == 2
    assert "val: 1 videos" in printed and "1 of the 2 listed files are MISSING" in printed


def test_validation_labels_follow_the_classes_of_the_training_list(two_classes, capsys):
    """The validation list alone would make yoga class 0."""
    manifest = read_manifest(kinetics(two_classes, "data.num_classes=2"), "val", SINGLE)
    assert manifest.class_names == ("abseiling", "yoga")
    assert manifest.labels.tolist() == [1]
    assert "2 names, abseiling .. yoga" in capsys.readouterr().out


def test_classes_without_names_are_numbered(two_classes):
    (two_classes / "train.csv").write_text("aaaaaaaaaaa.mp4 1\n")
    manifest = read_manifest(kinetics(two_classes, "data.num_classes=2"), "train", SINGLE)
    assert manifest.class_names == ("0", "1")


def test_a_machine_that_only_tests_needs_no_training_list(two_classes):
    (two_classes / "train.csv").unlink()
    (two_classes / "val.csv").write_text("ccccccccccc.mp4 1\n")
    assert read_manifest(kinetics(two_classes, "data.num_classes=2"), "val", SINGLE).labels.tolist() == [1]


def test_a_wrong_number_of_classes_is_refused(two_classes):
    with pytest.raises(ConfigError, match=r"data\.num_classes: found 3, expected 2"):
        read_manifest(kinetics(two_classes, "data.num_classes=3"), "val", SINGLE)


# Other datasets


@pytest.mark.parametrize(
    ("dataset", "overrides", "classes"),
    [("folders", (), ("a", "b")), ("ucf101", ("data.fold=2",), ("Archery",)), ("hmdb51", ("data.fold=2",), ("wave",))],
)
def test_datasets_are_read_by_their_own_readers(tmp_path, capsys, dataset, overrides, classes):
    for file in ("train/a/1.mp4", "train/b/2.mp4", "train/b/notes.txt", "Archery/v_1.avi", "wave/w.avi"):
        touch(tmp_path / file)
    (tmp_path / "classInd.txt").write_text("1 Archery\n")
    (tmp_path / "trainlist02.txt").write_text("Archery/v_1.avi 1\n")
    (tmp_path / "wave_test_split2.txt").write_text("w.avi 1\n")
    config = kinetics(tmp_path, f"data.dataset={dataset}", f"data.num_classes={len(classes)}", *overrides)
    manifest = read_manifest(config, "train", SINGLE)
    assert manifest.class_names == classes
    assert len(manifest) == len(classes)
    if dataset == "folders":
        assert "1 other files or folders ignored" in capsys.readouterr().out  # notes.txt


def test_a_dataset_with_captions_has_no_labels(tmp_path):
    config = load_config("configs/coco_captions.yaml", [f"data.root={tmp_path}"])
    assert config.data.dataset not in READERS
    with pytest.raises(ConfigError, match=r"data\.dataset: found 'coco_captions'"):
        listed_videos(config, "train")


@pytest.fixture
def shards(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    for split in ("train", "validation"):
        with webdataset.TarWriter(str(tmp_path / f"some-{split}-0000.tar"), encoder=False) as shard:
            shard.write({"__key__": "a", "jpg": b"", "cls": b"1"})

    def read(*overrides, split="val"):
        config = load_config("configs/imagenet21k_5x5.yaml", [f"data.root={tmp_path}", *overrides])
        return read_manifest(config, split, SINGLE)

    return tmp_path, read


def test_shards_without_a_class_list_have_numbered_classes(shards):
    _, read = shards
    assert len(read().class_names) == 21843


def test_shards_take_their_classes_from_the_class_list(shards, capsys):
    root, read = shards
    (root / "classes.txt").write_text("cat\ndog\n")
    assert read("data.num_classes=2").class_names == ("cat", "dog")
    assert read("data.val_shards=some-{train,validation}-0000.tar", "data.num_classes=2").labels.tolist() == [1, 1]
    assert "val: 2 images" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"data\.num_classes: found 21843, expected 2"):
        read()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.val_shards=other-*.tar", "data.val_shards"),
        ("data.class_list=names.txt", "data.class_list"),
        ("data.skip_list=skipped.txt", "data.skip_list"),
    ],
)
def test_errors_about_missing_files_name_the_key(shards, override, key):
    _, read = shards
    with pytest.raises(MissingDataError, match=f"^{key}: "):
        read(override)


def test_shard_keys_are_refused_for_other_datasets():
    with pytest.raises(ConfigError, match=r"data\.val_shards"):
        load_config("configs/imagenet_5x5.yaml", ["data.val_shards=x.tar"])


def test_skipped_and_missing_videos_are_counted(two_classes):
    (two_classes / "aaaaaaaaaaa.mp4").unlink()
    (two_classes / "skip.txt").write_text(f"{two_classes / 'bbbbbbbbbbb.mp4'}\tdamaged\n")
    (two_classes / "train.csv").write_text("aaaaaaaaaaa.mp4 0\nbbbbbbbbbbb.mp4 1\nccccccccccc.mp4 1\n")
    config = kinetics(two_classes, "data.num_classes=2", f"data.skip_list={two_classes / 'skip.txt'}")
    manifest, note = exclude_absent(config, listed_videos(config, "train"))
    assert list(manifest.paths) == [str(two_classes / "ccccccccccc.mp4")]
    assert "1 skipped by" in note and "1 of the 3 listed files are MISSING" in note


def test_a_skip_list_without_a_match_is_reported(two_classes):
    (two_classes / "skip.txt").write_text("elsewhere/a.mp4\n")
    config = kinetics(two_classes, "data.num_classes=2", f"data.skip_list={two_classes / 'skip.txt'}")
    _, note = exclude_absent(config, listed_videos(config, "train"))
    assert f"0 skipped by {two_classes / 'skip.txt'}" in note


def test_classes_without_a_training_video_are_reported(two_classes, capsys):
    (two_classes / "classes.txt").write_bytes(b"\xef\xbb\xbfabseiling\r\nyoga\r\nzumba\r\n\r\n")
    manifest = read_manifest(kinetics(two_classes, "data.num_classes=3"), "train", SINGLE)
    assert manifest.class_names == ("abseiling", "yoga", "zumba")
    assert "train: 1 classes WITHOUT a training video: zumba" in capsys.readouterr().out


def test_an_unknown_recipe_key_is_named(tmp_path):
    config = load_config(
        "configs/camera_motion.yaml", [f"data.root={tmp_path}", "data.camera_motion={train_vidoes: 4}"]
    )
    with pytest.raises(ConfigError, match=r"data\.camera_motion: .*'train_vidoes'"):
        read_manifest(config, "train", SINGLE)


# Preprocessing and augmentation


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ((), '{"frames": 32, "stride": 2, "short_side": 256, "crop": 224, "range": [-1, 1]}'),
        (
            ("data.target_fps=30", "data.test_resize=area"),
            '{"frames": 32, "stride": 2, "short_side": 256, "crop": 224, "range": [-1, 1], "target_fps": 30.0, '
            '"resize": "area"}',
        ),
        (
            ("data.sampling=segments", "data.frames=8"),
            '{"frames": 8, "stride": 2, "short_side": 256, "crop": 224, "range": [-1, 1], "sampling": "segments"}',
        ),
    ],
)
def test_preprocessing_as_it_stands_in_model_json(overrides, text):
    data = kinetics("videos", *overrides).data
    assert json.dumps(data.preprocess().to_dict()) == text


def test_training_and_testing_select_frames_alike(two_classes):
    config = kinetics(two_classes, "data.num_classes=2", "data.target_fps=10", "eval.crops=1")
    manifest = listed_videos(config, "val")
    dataset = multi_view_dataset(config, manifest, num_clips=4, num_crops=3, centre_view=True)
    assert dataset.preprocess == config.data.preprocess()
    assert (len(dataset.clip_index), dataset.preprocess.sampling.target_fps) == (13, 10)


def test_a_crop_that_does_not_fit_names_its_key(two_classes):
    config = kinetics(two_classes, "data.num_classes=2", "data.crop=256")
    with pytest.raises(DataError, match=r"^data\.crop: found 256"):  # scale jitter can shrink the frames to 230 pixels
        train_transform(config, listed_videos(config, "train"))


def test_flips_exchange_labels_both_ways(two_classes):
    flips = ("augment.flip_labels={abseiling: yoga}", "augment.horizontal_flip=1")
    manifest = listed_videos(kinetics(two_classes, "data.num_classes=2"), "train")
    transform = train_transform(kinetics(two_classes, "data.num_classes=2", *flips), manifest)
    assert transform.flip_labels == {0: 1, 1: 0}
    with pytest.raises(ConfigError, match=r"augment\.flip_labels: found 'dancing'"):
        unknown = kinetics(two_classes, "data.num_classes=2", "augment.flip_labels={abseiling: dancing}")
        train_transform(unknown, manifest)


def test_class_folders_without_splits_need_a_fraction_to_hold_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            (tmp_path / name / f"{number}.mp4").touch()
    settings = ["data.dataset=folders", "data.num_classes=2"]
    with pytest.raises(DataError, match=r"no folder of the split 'train'.*data\.val_fraction is set"):
        listed_videos(kinetics(tmp_path, *settings), "train")
    assert len(listed_videos(kinetics(tmp_path, *settings, "data.val_fraction=0.5"), "train")) == 2


@pytest.mark.parametrize(("num_videos", "reports"), [(1, False), (3, True)])
def test_class_weights_with_balanced_classes_are_reported(tmp_path, capsys, num_videos, reports):
    """Both favour smaller classes; where all classes are equally large, neither changes anything."""
    for split in ("train", "val"):
        for name, count in (("a", 1), ("b", num_videos)):
            for number in range(count):
                touch(tmp_path / split / name / f"{number}.mp4")
    both = ("optim.class_weights=true", "data.balance_classes=true", "optim.batch_size=2")
    task = Classification(kinetics(tmp_path, "data.dataset=folders", "data.num_classes=2", *both), SINGLE)
    task.read_data()
    assert ("optim.class_weights: data.balance_classes already" in capsys.readouterr().out) == reports


def test_the_pixel_limit_reaches_training_and_tests(tmp_path):
    """A larger video fails as a corrupt one does."""
    for name in ("small", "large"):
        for split in ("train", "val"):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            encode(tmp_path / split / name / "clip.mp4", frames=4, width=64 if name == "small" else 96, height=48)
    settings = ["data.dataset=folders", "data.num_classes=2", f"data.max_pixels={64 * 48}"]
    config = kinetics(tmp_path, *settings)
    train_set, val_set = (read_manifest(config, split, SINGLE) for split in ("train", "val"))
    views = multi_view_dataset(config, val_set, 1, 1)
    failed = [views[index]["failed"] for index in range(2)]
    assert "large" in failed[0] and "96 x 48 pixels, expected at most 3072" in failed[0] and not failed[1]
    [sample] = train_dataset(config, train_set)[0, 0]
    assert "96 x 48 pixels" in sample["failed"] and "small" in sample["video_name"]
