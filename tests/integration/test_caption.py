"""Captioning from end to end: a dataset in COCO's layout, training, resuming, and tools/caption.py."""

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
    """Images in one of four colours in COCO's layout. One training image is missing, and one test image is corrupt."""
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
    (root / "val2014" / f"COCO_val2014_test_{7:012d}.jpg").write_bytes(b"not an image")
    (root / "dataset_coco.json").write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A classifier's run directory to start from."""
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
    """Run tools/caption.py in this process; returns its exit status, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["caption.py", *map(str, arguments)])
        monkeypatch.setattr("os._exit", sys.exit)
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(ROOT / "tools" / "caption.py"), run_name="__main__")
        captured = capsys.readouterr()
        return exit.value.code, captured.out, captured.err

    return run


def require_encoder_unchanged(run, encoder):
    initial, trained = load_file(encoder / "model.safetensors"), load_file(run / "model.safetensors")
    names = [name for name in trained if name.startswith("encoder.")]
    assert len(names) > 20
    assert all(torch.equal(trained[name], initial[name.removeprefix("encoder.")]) for name in names)


def colour_of(image):
    return list(COLOURS)[int(Path(image).stem[-12:]) % 4]


@pytest.mark.cold
@pytest.mark.slow
def test_a_captioner_learns_and_the_tool_scores_and_writes_captions(tmp_path, train, caption, coco, encoder):
    run = tmp_path / "run"
    output = train(run, "optim.max_steps=60", "log.validate_every_epochs=15", "log.attention_every_epochs=30")
    assert "31 images with 93 captions" in output and "1 of the 32 listed" in output
    require_encoder_unchanged(run, encoder)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    # One of three sentences with the right colour; sentences that match word for word would have about 1000.
    assert [record["CIDEr"] for record in records if record["kind"] == "val"][-1] > 150
    assert Tokenizer.from_file(str(run / "tokenizer.json")).get_vocab_size() <= 300
    assert list((run / "captions").glob("*.png")) and (run / "best" / "tokenizer.json").is_file()
    assert "tokenizer" not in json.loads((run / "model.json").read_text())
    references = check_scores(run, coco, caption)
    check_captions_of_files(run / "best", coco, caption, tmp_path)
    check_scores_of_a_list(run, coco, caption, references, tmp_path / "scores")
    check_captioners_are_no_classifiers(run, coco)


def check_scores(run, coco, caption):
    """Score the test split; returns the references by image."""
    status, output, error = caption("--run", run, "--score", coco)
    assert status == 1 and "FAILED" in output, error
    report = json.loads((run / "predictions" / "captions_test.json").read_text())
    assert (report["images"], len(report["broken_images"]), report["beams"]) == (7, 1, 4)
    captions = {entry["image"]: entry["caption"] for entry in report["captions"]}
    references = {entry["image"]: entry["references"] for entry in report["captions"]}
    assert report["scores"] == caption_scores(captions, references) and report["scores"]["CIDEr"] > 1.5
    assert sum(colour_of(image) in text for image, text in captions.items()) >= 5
    assert np.asarray(Image.open(run / "predictions" / "captions_test.png")).shape[0] > 200
    return references


def check_captions_of_files(run, coco, caption, tmp_path):
    figures, file = tmp_path / "figures", tmp_path / "captions.json"
    options = ("--beams", 1, "--batch-size", 5, "--output", figures, "--json", file)
    status, output, error = caption(coco / "val2014", "--run", run, *options)
    entries = json.loads(file.read_text())["captions"]
    assert status == 1 and sum("error" in entry for entry in entries) == 1 and "1 of 24" in error
    assert len(entries) == 24 and len(list(figures.glob("*.png"))) == 5
    for entry in entries:
        assert "error" in entry or f"{entry['path']}: {entry['caption']}" in output


def check_scores_of_a_list(run, coco, caption, references, output):
    """The test images as a user's own list have the same scores; other sizes and searches have their own files."""
    rows = [{"image": f"val2014/{Path(path).name}", "captions": texts} for path, texts in references.items()]
    (coco / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--run", run, "--score", coco / "mine.jsonl", "--output", output)
    assert caption(*arguments)[0] == 0
    of_split = json.loads((run / "predictions" / "captions_test.json").read_text())
    assert json.loads((output / "captions_mine.json").read_text())["scores"] == of_split["scores"]
    assert caption(*arguments, "--compressed-size", "1x3x3", "--beams", "1")[0] == 0
    assert len(json.loads((output / "captions_mine_1x3x3_greedy.json").read_text())["captions"]) == 7
    for options, message in (
        (("--score", coco / "mine.jsonl", "--compressed-size", "1x9x9"), "1x9x9"),
        (("--score", coco / "no.json"), "no.json"),
        (("--score", output), "captions_mine.json"),  # a folder without Karpathy's file: its lists are suggested
        (("--score", output / "captions_mine.json", "--split", "val"), "captions_mine.json: "),  # has no splits
    ):
        status, _, error = caption("--run", run, *options)
        assert status == 2 and message in error and error.count("\n") == 1


def check_captioners_are_no_classifiers(run, coco):
    for tool, arguments in (("predict.py", [str(coco), "--run"]), ("summarize.py", [])):
        with pytest.raises(SystemExit) as exit:
            sys.argv = [tool, *arguments, str(run)]
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        assert exit.value.code not in (0, None)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("classifier"), ("a", "b"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--score DATASET"),
        (("x.jpg", "--score", "data"), "--score DATASET"),
        (("x.jpg", "--split", "val"), "--split"),
        (("x.jpg", "--compressed-size", "1,3,3"), "--compressed-size"),
        (("--score", "data"), "expected a captioner"),
    ],
)
def test_invalid_commands_end_with_status_2(arguments, message, caption, classifier):
    status, _, error = caption("--run", classifier, *arguments)
    assert status == 2 and message in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["data.num_classes=5"], "data.num_classes"),
        (["augment.mixup=0.2"], "augment.mixup"),
        (["data.dataset=folders", "data.num_classes=2"], "caption"),
        (["caption.vocabulary=100"], "caption.vocabulary: found 100"),
        (["caption.num_heads=5"], "caption: .*num_heads"),
        (["data.root=/nonexistent"], "dataset_coco.json"),
    ],
)
def test_invalid_settings_raise_one_line_that_names_the_key(settings, key, coco):
    with pytest.raises(ValueError, match=key) as error:
        config = load_config(ROOT / "configs" / "coco_captions.yaml", (*SMALL, f"data.root={coco}", *settings))
        task = create_task(config, World(0, 1, torch.device("cpu")))
        task.build_model()
        task.read_data()
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("runtime.zero_stage=0", "runtime.activation_checkpointing=true"),
        ("runtime.precision=bf16",),
        ("runtime.precision=bf16", "runtime.zero_stage=3"),
        ("runtime.zero_stage=2", "optim.ema_decay=0.5"),
    ],
    ids=" ".join,
)
def test_a_resumed_run_equals_an_uninterrupted_one_and_the_encoder_stays_unchanged(tmp_path, train, encoder, settings):
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    overrides = (
        "optim.max_steps=8",
        "log.checkpoint_every_epochs=1.5",
        "log.validate_every_epochs=2",
        "log.attention_every_epochs=2",
        *settings,
    )
    train(uninterrupted, *overrides)
    shutil.copytree(uninterrupted, resumed)
    shutil.rmtree(max((resumed / "checkpoints").glob("step_*")))  # as if killed after the checkpoint before
    (resumed / "model.safetensors").unlink()
    assert "resuming from step" in train(resumed, *overrides)
    for run in (uninterrupted, resumed):
        require_encoder_unchanged(run, encoder)
        require_encoder_unchanged(run / "best", encoder)
    expected, weights = load_file(uninterrupted / "model.safetensors"), load_file(resumed / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
