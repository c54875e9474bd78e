"""Captions from end to end as a user has them: a set in COCO's layout, training, resuming, and the tool that writes."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.image_models import small_model
from support.paths import ROOT
from tokenizers import Tokenizer

import lookupvivit
from lookupvivit.captioning.metrics import caption_scores
from lookupvivit.config.loading import load_config
from lookupvivit.training.build import build_model
from lookupvivit.training.distributed import World
from lookupvivit.training.tasks import create_task
from lookupvivit.weights.files import save_model

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220), "white": (240, 240, 240)}
COUNTS = {"train": 24, "restval": 8, "val": 8, "test": 8}
ENCODER = "{width: 16, depth: 2, num_heads: 2, tubelet: [1, 4, 4], compressed_size: [1, 2, 2]}"
SMALL = (
    "model.name=lookupvit_ti16_3x3",
    f"model.overrides={ENCODER}",
    "caption={width: 32, depth: 1, num_heads: 2, length: 12, vocabulary: 300}",
    "data.short_side=16",
    "data.crop=16",
    "data.workers=0",
    "data.decode_seconds=0",
    "optim.warmup_epochs=0",
    "optim.batch_size=16",
    "optim.lr=1e-2",
    "runtime.threads=1",
    "runtime.precision=fp32",
    "eval.batch_size=6",
    "log.every=1",
    "log.attention_clips=4",
)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Plain pictures of four colours, of which one is missing and one broken."""
    root, rng, entries = tmp_path_factory.mktemp("coco"), np.random.default_rng(0), []
    for split, count in COUNTS.items():
        folder = "train2014" if split == "train" else "val2014"
        (root / folder).mkdir(exist_ok=True)
        for number in range(count):
            colour, name = list(COLOURS)[number % 4], f"COCO_{folder}_{split}_{number:012d}.jpg"
            pixels = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 12, (20, 24, 3)), 0, 255).astype(np.uint8)
            if (split, number) != ("train", 5):
                Image.fromarray(pixels).save(root / folder / name)
            texts = [f"A picture all in {colour}.", f"This is nothing but {colour}.", f"It shows {colour} and no more."]
            entry = {"filepath": folder, "filename": name, "split": split, "sentences": [{"raw": t} for t in texts]}
            entries.append(entry)
    (root / "val2014" / f"COCO_val2014_test_{7:012d}.jpg").write_bytes(b"no picture")
    (root / "dataset_coco.json").write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A run of a classifier, to start from."""
    folder = tmp_path_factory.mktemp("encoder") / "run"
    torch.manual_seed(3)
    overrides = {
        "width": 16,
        "depth": 2,
        "num_heads": 2,
        "tubelet": [1, 4, 4],
        "compressed_size": [1, 2, 2],
        "input_size": [1, 16, 16],
    }
    model = lookupvivit.create_model("lookupvit_ti16_3x3", 4, **overrides)
    save_model(folder, model.state_dict(), {"name": "lookupvit_ti16_3x3", "num_classes": 4, "overrides": overrides})
    return folder


@pytest.fixture
def train(coco, encoder, shell):
    def run(folder, *overrides):
        settings = (*SMALL, f"data.root={coco}", f"init_from={encoder}", f"output_dir={folder}", *overrides)
        config = ROOT / "configs" / "coco_captions.yaml"
        return shell([sys.executable, str(ROOT / "tools" / "train_net.py"), "--cfg", str(config), *settings])

    return run


@pytest.fixture
def caption(monkeypatch, capsys):
    """The tool in this process: its exit status, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["caption.py", *map(str, arguments)])
        monkeypatch.setattr("os._exit", sys.exit)
        with pytest.raises(SystemExit) as leaving:
            runpy.run_path(str(ROOT / "tools" / "caption.py"), run_name="__main__")
        told = capsys.readouterr()
        return leaving.value.code, told.out, told.err

    return run


def assert_encoder_is(run, encoder):
    theirs, ours = load_file(encoder / "model.safetensors"), load_file(run / "model.safetensors")
    kept = [name for name in ours if name.startswith("encoder.")]
    assert len(kept) > 20 and all(torch.equal(ours[name], theirs[name.removeprefix("encoder.")]) for name in kept)


@pytest.mark.cold
@pytest.mark.slow
def test_a_captioner_learns_and_the_tool_writes_and_scores(tmp_path, train, caption, coco, encoder):
    run = tmp_path / "run"
    told = train(run, "optim.max_steps=60", "log.validate_every_epochs=15", "log.attention_every_epochs=30")
    assert "train: 31 images with 93 captions" in told and "1 of the 32 listed files are MISSING" in told
    assert "classifiers are left out and the rest of it is frozen" in told and "of 93 are cut" in told
    assert_encoder_is(run, encoder)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r["CIDEr"] for r in records if r["kind"] == "val"][-1] > 300  # which colour it is, in one of three ways
    assert Tokenizer.from_file(str(run / "tokenizer.json")).get_vocab_size() <= 300
    assert list((run / "captions").glob("*.png")) and (run / "best" / "tokenizer.json").is_file()
    assert "tokenizer" not in json.loads((run / "model.json").read_text())

    status, told, error = caption("--model", run, "--score", coco)
    assert status == 1 and "BROKEN, not in the scores" in told, error
    report = json.loads((run / "predictions" / "captions_test.json").read_text())
    assert (report["images"], len(report["broken_images"]), report["beams"]) == (7, 1, 4)
    written = {entry["image"]: entry["caption"] for entry in report["captions"]}
    references = {entry["image"]: entry["references"] for entry in report["captions"]}
    assert report["scores"] == caption_scores(written, references) and report["scores"]["CIDEr"] > 3
    for image, text in written.items():
        number = int(Path(image).stem[-12:])
        assert list(COLOURS)[number % 4] in text
    assert np.asarray(Image.open(run / "predictions" / "captions_test.png")).shape[0] > 200

    output, file = tmp_path / "out", tmp_path / "told.json"
    status, told, error = caption(
        coco / "val2014", "--model", run / "best", "--beams", 1, "--batch", 5, "--output", output, "--json", file
    )
    entries = json.loads(file.read_text())["captions"]
    assert status == 1 and sum("error" in entry for entry in entries) == 1 and "1 of 24 could not be read" in error
    assert len(entries) == 24 and len(list(output.glob("*.png"))) == 5
    for entry in entries:
        assert "error" in entry or f"{entry['path']}: {entry['caption']}" in told

    # the same images as a list of one's own, and other numbers of tokens from the same weights
    rows = [{"image": f"val2014/{Path(path).name}", "captions": texts} for path, texts in references.items()]
    (coco / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = ("--model", run, "--score", coco / "mine.jsonl", "--output", output)
    assert caption(*mine)[0] == 0
    assert json.loads((output / "captions_mine.json").read_text())["scores"] == report["scores"]
    assert caption(*mine, "--compressed-size", "1,3,3", "--beams", "1")[0] == 0
    assert len(json.loads((output / "captions_mine_1x3x3_greedy.json").read_text())["captions"]) == 7
    for arguments, message in (
        (("--score", coco / "mine.jsonl", "--compressed-size", "1,9,9"), "found [1, 9, 9] (t, h, w), must be at most"),
        (("--score", coco / "no.json"), "no.json: no such file or folder; must hold dataset_coco.json or be a list"),
        (("--score", tmp_path), "to score a set of your own, give its list: told.json"),
        (("--score", file, "--split", "val"), "a plain list has no split"),
    ):
        status, _, error = caption("--model", run, *arguments)
        assert status == 2 and message in error and error.count("\n") == 1
    for tool in ("predict.py", "summarize.py"):
        with pytest.raises(SystemExit) as leaving:
            sys.argv = [tool, *([str(coco), "--model"] if tool == "predict.py" else []), str(run)]
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        assert leaving.value.code not in (0, None)


def test_mistakes_are_one_line(tmp_path, caption, coco):
    classifier = small_model(tmp_path / "classifier", ("a", "b"))
    for arguments, message in (
        (("--model", classifier), "give pictures to write captions of, or --score SET"),
        (("x.jpg", "--model", classifier, "--score", coco), "one of both"),
        (("x.jpg", "--model", classifier, "--split", "val"), "--split: goes with --score"),
        (("--model", classifier, "--score", coco), "a LookupViT, which has classes and writes no captions"),
    ):
        status, _, error = caption(*arguments)
        assert status == 2 and message in error and "Traceback" not in error
    for setting, message in (
        ("data.num_classes=5", "data.num_classes: found 5, must be left out where data.dataset is coco_captions"),
        ("augment.mixup=0.2", "augment.mixup: found 0.2, must be 0 where captions are learned"),
        ("data.dataset=folders", "caption.width: found 32, must be left out unless data.dataset is coco_captions or"),
        ("caption.vocabulary=100", "caption.vocabulary: found 100, must be at least 259"),
        ("caption.num_heads=5", "caption: num_heads must divide width"),
        (f"data.root={tmp_path}", "found neither dataset_coco.json nor annotations/dataset_coco.json"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            given = (*SMALL, f"data.root={coco}", *(["data.num_classes=2"] if "folders" in setting else []), setting)
            config = load_config(ROOT / "configs" / "coco_captions.yaml", given)
            build_model(config)
            create_task(config, World(0, 1, torch.device("cpu"))).read_data()
        assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        ("runtime.zero_stage=0", "runtime.activation_checkpointing=true"),
        ("runtime.precision=bf16",),
        ("runtime.precision=bf16", "runtime.zero_stage=3"),
        ("runtime.zero_stage=2", "optim.ema_decay=0.5"),
    ],
    ids=" ".join,
)
def test_a_stopped_run_goes_on_and_the_encoder_stays_bit_identical(tmp_path, train, encoder, setting):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    often = (
        "optim.max_steps=8",
        "log.checkpoint_every_epochs=1.5",
        "log.validate_every_epochs=2",
        "log.attention_every_epochs=2",
        *setting,
    )
    train(straight, *often)
    train(stopped, *often)
    shutil.rmtree(max((stopped / "checkpoints").glob("step_*")))  # as if it had been killed after the one before
    assert "resuming from step" in train(stopped, *often)
    for run in (straight, stopped):
        assert_encoder_is(run, encoder)
        assert_encoder_is(run / "best", encoder)
    one, other = load_file(straight / "model.safetensors"), load_file(stopped / "model.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
