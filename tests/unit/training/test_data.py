"""From a configuration to the videos of a split: the right reader, the right class names, and what is told."""

import pytest
import torch

from data_pipelines.datasets.class_names import class_names
from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config
from lookupvivit.training.data import read_manifest
from lookupvivit.training.distributed import World

ALONE = World(0, 1, torch.device("cpu"))
CSV = "label,youtube_id,time_start,time_end,split\n"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def kinetics(root, *overrides):
    return load_config("configs/k400_9x9x8.yaml", [f"data.root={root}", *overrides])


def test_kinetics_400_has_its_names_whatever_the_list(tmp_path, capsys):
    touch(tmp_path / "val" / "zzzzzzzzzz-_000007_000017.mp4")
    (tmp_path / "train.csv").write_text("val/zzzzzzzzzz-_000007_000017.mp4 399\n")
    (tmp_path / "val.csv").write_text(f"{CSV}zumba,zzzzzzzzzz-,7,17,val\nyoga,zzzzzzzzzz_,7,17,val\n")
    lists = [read_manifest(kinetics(tmp_path), split, ALONE) for split in ("train", "val")]
    assert lists[0].paths == lists[1].paths and lists[0].labels.tolist() == lists[1].labels.tolist() == [399]
    assert lists[0].class_names == lists[1].class_names == class_names("kinetics400")
    said = capsys.readouterr().out
    assert said.count("classes: kinetics400, 400 names, abseiling .. zumba") == 2
    assert "val: 1 videos from" in said and "1 of the 2 listed files are MISSING and left out" in said


def test_classes_of_other_numbers_come_from_the_training_list(tmp_path, capsys):
    for name in ("aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"):
        touch(tmp_path / f"{name}.mp4")
    (tmp_path / "train.csv").write_text(f"{CSV}yoga,aaaaaaaaaaa,7,17,train\nabseiling,bbbbbbbbbbb,7,17,train\n")
    (tmp_path / "val.csv").write_text(f"{CSV}yoga,ccccccccccc,7,17,val\n")  # alone it would make yoga class 0
    manifest = read_manifest(kinetics(tmp_path, "data.num_classes=2"), "val", ALONE)
    assert manifest.class_names == ("abseiling", "yoga") and manifest.labels.tolist() == [1]
    assert "classes: the data's own, 2 names, abseiling .. yoga" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"data\.num_classes: found 3, must be 2"):
        read_manifest(kinetics(tmp_path, "data.num_classes=3"), "val", ALONE)
    (tmp_path / "train.csv").write_text("aaaaaaaaaaa.mp4 1\n")
    assert read_manifest(kinetics(tmp_path, "data.num_classes=2"), "train", ALONE).class_names == ("0", "1")
    (tmp_path / "train.csv").rename(tmp_path / "val.csv")  # a machine that only tests
    assert read_manifest(kinetics(tmp_path, "data.num_classes=2"), "val", ALONE).labels.tolist() == [1]


def test_shards_have_as_many_classes_as_their_list(tmp_path, capsys):
    webdataset = pytest.importorskip("webdataset")
    for split in ("train", "validation"):
        with webdataset.TarWriter(str(tmp_path / f"some-{split}-0000.tar"), encoder=False) as shard:
            shard.write({"__key__": "a", "jpg": b"", "cls": b"1"})

    def manifest(*overrides, split="val"):
        config = load_config("configs/imagenet21k_5x5.yaml", [f"data.root={tmp_path}", *overrides])
        return read_manifest(config, split, ALONE)

    assert len(manifest().class_names) == 21843  # numbers: nobody has named them
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert manifest("data.num_classes=2").class_names == ("cat", "dog")
    assert manifest("data.val_shards=some-{train,validation}-0000.tar", "data.num_classes=2").labels.tolist() == [1, 1]
    assert "val: 2 pictures from" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"data\.num_classes: found 21843, must be 2, as many classes as"):
        manifest()
    with pytest.raises(ConfigError, match=r"data\.val_shards: .* no value unless data.dataset is shards"):
        load_config("configs/imagenet_5x5.yaml", ["data.val_shards=x.tar"])


def test_every_other_data_set_has_its_reader(tmp_path, capsys):
    for file in ("train/a/1.mp4", "train/b/2.mp4", "train/b/notes.txt", "Archery/v_1.avi", "wave/w.avi"):
        touch(tmp_path / file)
    (tmp_path / "classInd.txt").write_text("1 Archery\n")
    (tmp_path / "trainlist02.txt").write_text("Archery/v_1.avi 1\n")
    (tmp_path / "wave_test_split2.txt").write_text("w.avi 1\n")
    for dataset, classes in (("folders", ("a", "b")), ("ucf101", ("Archery",)), ("hmdb51", ("wave",))):
        manifest = read_manifest(
            load_config(
                "configs/k400_9x9x8.yaml",
                [
                    f"data.dataset={dataset}",
                    f"data.root={tmp_path}",
                    f"data.num_classes={len(classes)}",
                    *(["data.fold=2"] if dataset != "folders" else []),
                ],
            ),
            "train",
            ALONE,
        )
        assert manifest.class_names == classes and len(manifest) == len(classes)
    assert "train: 2 videos from" in (said := capsys.readouterr().out)
    assert "1 files or folders that are no videos ignored" in said
