"""The ImageNet configurations at a small size, end to end on small datasets: class folders, shards, 21k to 1k."""

import sys

import numpy as np
import pytest
import torch
from support.image_models import write_images
from support.paths import ROOT
from support.runs import log_records

import lookupvivit
from data_pipelines.datasets.class_folders import read_split_folders
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
    """Class folders of two classes, and shards of four."""
    pytest.importorskip("webdataset")
    for name, classes in (("1k", FEW), ("21k", MANY)):
        for split, count in (("train", 8), ("val", 3)):
            write_images(tmp_path / name / split, classes, count, seed=count, size=(50, 40))
    for split in ("train", "val"):
        write_shards(read_split_folders(tmp_path / "21k", split), tmp_path / "shards", split, 4000)
    return tmp_path


@pytest.mark.slow
def test_pretraining_on_shards_then_fine_tuning_on_larger_images(sets, tool):
    """Both classifiers start at the loss of their bias; in fine-tuning they start at zeros, with a loss of log 2."""
    before, after = sets / "pretrained", sets / "finetuned"
    shards = (f"data.root={sets / 'shards'}", f"output_dir={before}", "data.num_classes=4")
    corrupt = next((sets / "21k" / "train" / "n03").iterdir())
    corrupt.write_bytes(b"corrupt")
    write_shards(read_split_folders(sets / "21k", "train").select([16]), sets / "shards", "trainextra")
    output = tool("train_net.py", "imagenet21k_5x5", *shards, "data.max_failed=0.1", "optim.batch_size=16")
    assert "train: 33 images from" in output and "n01 .. n04" in output
    assert corrupt.stem in (before / "failed_videos.txt").read_text()
    (first, *_), softplus = log_records(before, "train"), torch.nn.functional.softplus
    expected = float(softplus(torch.tensor(10.0)) + 3 * softplus(torch.tensor(-10.0)))  # one class of four
    assert first["compressed_loss"] == pytest.approx(expected, rel=1e-4) == first["lookup_loss"]
    output = tool("test_net.py", "imagenet21k_5x5", *shards)
    assert (before / "predictions" / "1x1.json").is_file() and "12" in output

    folders = (
        f"data.root={sets / '1k'}",
        f"output_dir={after}",
        "data.num_classes=2",
        "data.crop=48",
        "data.short_side=56",
    )
    output = tool("train_net.py", "imagenet_from21k_5x5", *folders, f"init_from={before}")
    assert "resized positions ((1, 4, 4) to (1, 6, 6))" in output
    assert "ignored compressed_head (4 classes" in output and "ignored lookup_head (4 classes" in output
    assert log_records(after, "train")[0]["compressed_loss"] == pytest.approx(0.693147, rel=1e-4)
    tool("test_net.py", "imagenet_from21k_5x5", *folders)
    model = lookupvivit.load_model(after)
    assert model.input_size == (1, 48, 48) and lookupvivit.class_names_of(model) == FEW
    assert lookupvivit.preprocess_of(model).resize == "area"
    assert len(log_records(after, "train")) == 3 and log_records(after, "val")


@pytest.mark.slow
def test_shards_give_equal_results_on_any_number_of_ranks(sets, tool):
    """Without mixup, whose partners depend on the rank; one rank accumulates what two compute in parallel."""
    given = (f"data.root={sets / 'shards'}", "data.num_classes=4", "augment.mixup=0")
    for ranks in (2, 1):  # two ranks index the shards first
        own = (*given, f"output_dir={sets / str(ranks)}")
        tool("train_net.py", "imagenet21k_5x5", *own, ranks=ranks)
        tool("test_net.py", "imagenet21k_5x5", *own, f"checkpoint={sets / '2'}", ranks=ranks)
    losses = [[record["loss"] for record in log_records(sets / ranks, "train")] for ranks in "21"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    two, one = (np.load(sets / ranks / "predictions" / "1x1.npz") for ranks in "21")
    assert two["video_names"].tolist() == one["video_names"].tolist() and len(two["video_names"]) == 12
    assert np.array_equal(two["head_logits"], one["head_logits"])


@pytest.mark.slow
@pytest.mark.parametrize("config", ["imagenet_multires", "imagenet_vit", "imagenet_tokenlearner"])
def test_other_models_train_from_scratch(sets, tool, config):
    own = {
        "imagenet_multires": ("model.multi_resolution.k=[1, 2, 3]", "model.overrides.compressed_size=[1, 2, 2]"),
        "imagenet_vit": (),
        "imagenet_tokenlearner": ("model.overrides.learn_at=1",),
    }
    run = (f"data.root={sets / '1k'}", f"output_dir={sets / 'run'}", "data.num_classes=2", *own[config])
    tool("train_net.py", config, *run)
    losses = [record["loss"] for record in log_records(sets / "run", "train")]
    assert len(losses) == 3 and losses[0] == pytest.approx(6.902 * (2 if "multires" in config else 1), rel=1e-3)
    tool("test_net.py", config, *run)
    assert (sets / "run" / "predictions" / "1x1.json").is_file()


@pytest.mark.slow
def test_shard_writing_skips_and_reports_unreadable_images(sets, shell):
    (sets / "1k" / "train" / "n02" / "5.JPEG").write_bytes(b"corrupt")
    output, config = sets / "shards_of_1k", str(ROOT / "configs" / "imagenet_5x5.yaml")
    start = [sys.executable, str(ROOT / "tools" / "prepare_dataset.py"), "--cfg", config, f"data.root={sets / '1k'}"]
    command = [*start, "data.num_classes=2", "--output", str(output), "--shards", "--shard-size", "0.004"]
    text = shell(command)
    assert "15 ok, 1 failed, 0 missing" in text and "train: 15 images in" in text
    assert f"data.dataset=shards data.root={output}" in text
    assert len(list(output.glob("train-*.tar"))) > 1 and len(list((output / ".index").glob("*.npz"))) > 2
    assert "train-000000.tar: " in shell(command, expect=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("imagenet_5x5", ("data.root=nowhere",), "nowhere: "),
        ("imagenet_5x5", ("data.num_classes=1000",), "data.num_classes: found 1000, expected 2"),
        ("imagenet21k_5x5", ("data.root=nowhere",), "nowhere/*train*.tar: "),
        ("imagenet21k_5x5", ("data.num_classes=3",), "data.num_classes: found 3, expected 4"),
        ("imagenet21k_5x5", ("data.class_list=x.json",), "data.class_list: "),
    ],
)
def test_a_users_mistake_is_a_one_line_error(sets, tool, config, overrides, message):
    root = sets / ("shards" if "21k" in config else "1k")
    given = (f"data.root={root}", "data.num_classes=4", f"output_dir={sets / 'run'}", *overrides)
    output = tool("train_net.py", config, *given, expect=2)
    assert [line for line in output.splitlines() if line.startswith("error")] == [output.splitlines()[-1]]
    assert message in output.splitlines()[-1] and "Traceback" not in output
