"""The ImageNet configurations, shrunk, run end to end on small collections: class folders, shards, 21k to 1k."""

import json
import sys

import numpy as np
import pytest
import torch
from support.image_models import write_images
from support.paths import ROOT

import lookupvivit
from data_pipelines.datasets.class_folders import read_folders
from data_pipelines.preparation.shard_writing import write_shards

MANY, FEW = ("n01", "n02", "n03", "n04"), ("n01", "n02")
SMALL = (
    "model.overrides.width=24",
    "model.overrides.depth=2",
    "model.overrides.num_heads=2",
    "model.overrides.tubelet=[1, 8, 8]",
    "data.crop=32",
    "data.short_side=40",
    "data.workers=0",
    "optim.batch_size=8",
    "optim.micro_batch_size=4",
    "optim.max_steps=3",
    "optim.warmup_epochs=0",
    "runtime.precision=fp32",
    "runtime.threads=1",
    "log.every=1",
    "log.attention_every_epochs=0",
)


@pytest.fixture
def tool(shell):
    def run(name, config, *overrides, expect=0, ranks=1):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
        start = [sys.executable, *launcher, str(ROOT / "tools" / name)]
        config = ["--cfg", str(ROOT / "configs" / f"{config}.yaml")]
        return shell([*start, *config, *SMALL, *map(str, overrides)], expect=expect)

    return run


@pytest.fixture
def sets(tmp_path):
    """Folders of two classes, and shards of four."""
    pytest.importorskip("webdataset")
    for name, classes in (("1k", FEW), ("21k", MANY)):
        for split, count in (("train", 8), ("val", 3)):
            write_images(tmp_path / name / split, classes, count, seed=count, size=(50, 40))
    for split in ("train", "val"):
        write_shards(read_folders(tmp_path / "21k", split), tmp_path / "shards", split, 4000)
    return tmp_path


def logged(run, kind):
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == kind]


@pytest.mark.slow
def test_pre_training_from_shards_then_fine_tuning_on_folders_at_a_larger_size(sets, tool):
    """The first loss is that of the head bias in both heads; fine-tuning starts at log 2 in each, from zeros."""
    before, after = sets / "pretrained", sets / "finetuned"
    shards = (f"data.root={sets / 'shards'}", f"output_dir={before}", "data.num_classes=4")
    (torn := next((sets / "21k" / "train" / "n03").iterdir())).write_bytes(b"torn")
    write_shards(read_folders(sets / "21k", "train").only([16]), sets / "shards", "trainextra")
    told = tool("train_net.py", "imagenet21k_5x5", *shards, "data.max_failed=0.1", "optim.batch_size=16")
    assert "train: 33 pictures from" in told and "classes: the data's own, 4 names, n01 .. n04" in told
    assert torn.stem in (before / "failed_videos.txt").read_text()
    (first, *_), softplus = logged(before, "train"), torch.nn.functional.softplus
    mixed_or_not = float(softplus(torch.tensor(10.0)) + 3 * softplus(torch.tensor(-10.0)))  # one target in four
    assert first["compressed_loss"] == pytest.approx(mixed_or_not, rel=1e-4) == first["lookup_loss"]
    told = tool("test_net.py", "imagenet21k_5x5", *shards)
    assert (before / "predictions" / "1x1.json").is_file() and "12" in told

    folders = (
        f"data.root={sets / '1k'}",
        f"output_dir={after}",
        "data.num_classes=2",
        "data.crop=48",
        "data.short_side=56",
    )
    told = tool("train_net.py", "imagenet_from21k_5x5", *folders, f"init_from={before}")
    assert "resized positions ((1, 4, 4) to (1, 6, 6))" in told
    assert "ignored compressed_head (4 classes, the model has 2); ignored lookup_head (4 classes" in told
    assert logged(after, "train")[0]["compressed_loss"] == pytest.approx(0.693147, rel=1e-4)
    tool("test_net.py", "imagenet_from21k_5x5", *folders)
    model = lookupvivit.load_model(after)
    assert model.input_size == (1, 48, 48) and model.class_names == FEW and model.preprocess.resize == "area"
    assert len(logged(after, "train")) == 3 and logged(after, "val")


@pytest.mark.slow
def test_shards_train_and_test_alike_on_any_number_of_ranks(sets, tool):
    """No mixup, whose partners are those of a rank; one rank accumulates what two compute side by side."""
    given = (f"data.root={sets / 'shards'}", "data.num_classes=4", "augment.mixup=0")
    for ranks in (2, 1):  # the two are the first to look through the shards
        own = (*given, f"output_dir={sets / str(ranks)}")
        tool("train_net.py", "imagenet21k_5x5", *own, ranks=ranks)
        tool("test_net.py", "imagenet21k_5x5", *own, f"checkpoint={sets / '2'}", ranks=ranks)
    losses = [[record["loss"] for record in logged(sets / ranks, "train")] for ranks in "21"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    two, one = (np.load(sets / ranks / "predictions" / "1x1.npz") for ranks in "21")
    assert two["video_names"].tolist() == one["video_names"].tolist() and len(two["video_names"]) == 12
    assert np.array_equal(two["head_logits"], one["head_logits"])


@pytest.mark.slow
@pytest.mark.parametrize("config", ["imagenet_multires", "imagenet_vit", "imagenet_tokenlearner"])
def test_the_other_models_train_from_scratch(sets, tool, config):
    own = {
        "imagenet_multires": ("model.multi_resolution.k=[1, 2, 3]", "model.overrides.compressed_size=[1, 2, 2]"),
        "imagenet_vit": (),
        "imagenet_tokenlearner": ("model.overrides.learn_at=1",),
    }
    run = (f"data.root={sets / '1k'}", f"output_dir={sets / 'run'}", "data.num_classes=2", *own[config])
    tool("train_net.py", config, *run)
    losses = [record["loss"] for record in logged(sets / "run", "train")]
    assert len(losses) == 3 and losses[0] == pytest.approx(6.902 * (2 if "multires" in config else 1), rel=1e-3)
    tool("test_net.py", config, *run)
    assert (sets / "run" / "predictions" / "1x1.json").is_file()


@pytest.mark.slow
def test_packing_leaves_out_what_cannot_be_read_and_says_so(sets, shell):
    (sets / "1k" / "train" / "n02" / "5.JPEG").write_bytes(b"torn")
    output, config = sets / "packed", str(ROOT / "configs" / "imagenet_5x5.yaml")
    start = [sys.executable, str(ROOT / "tools" / "prepare_dataset.py"), "--cfg", config, f"data.root={sets / '1k'}"]
    asked = [*start, "data.num_classes=2", "--output", str(output), "--shards", "--shard-size", "0.004"]
    told = shell(asked)
    assert "16 videos: 15 ok, 1 broken, 0 missing" in told and "train: 15 pictures in" in told
    assert f"data.dataset=shards data.root={output}" in told
    assert len(list(output.glob("train-*.tar"))) > 1 and len(list((output / ".index").glob("*.npz"))) > 2
    assert "train-000000.tar: is there already" in shell(asked, expect=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "overrides", "words"),
    [
        ("imagenet_5x5", ("data.root=nowhere",), "error: nowhere: no such folder; must be a folder"),
        ("imagenet_5x5", ("data.num_classes=1000",), "data.num_classes: found 1000, expected 2"),
        ("imagenet21k_5x5", ("data.root=nowhere",), "nowhere/*train*.tar: no such shard"),
        ("imagenet21k_5x5", ("data.num_classes=3",), "data.num_classes: found 3, expected 4"),
        ("imagenet21k_5x5", ("data.class_list=x.json",), "x.json: no such file; data.class_list is"),
    ],
)
def test_a_mistake_is_one_line(sets, tool, config, overrides, words):
    root = sets / ("shards" if "21k" in config else "1k")
    given = (f"data.root={root}", "data.num_classes=4", f"output_dir={sets / 'run'}", *overrides)
    told = tool("train_net.py", config, *given, expect=2)
    assert [line for line in told.splitlines() if line.startswith("error")] == [told.splitlines()[-1]]
    assert words in told and "Traceback" not in told
