"""Several classes per video: training, test and prediction, against scikit-learn and sigmoids of the logits."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT
from support.runs import log_records

from lookupvivit.config import ConfigError
from lookupvivit.config.loading import load_config
from lookupvivit.evaluation.run_summary import summarize_run
from lookupvivit.evaluation.stored_predictions import Predictions
from lookupvivit.training.classification import Classification
from lookupvivit.weights.files import read_description

NAMES = ("red", "green", "blue")


@pytest.fixture
def settings(tmp_path):
    """40 images whose channels are bright or not; a class per channel."""
    rng, rows = np.random.default_rng(0), ["path,labels,group"]
    (tmp_path / "data").mkdir()
    for index in range(40):
        bright = rng.random(3) < 0.5
        pixels = rng.integers(0, 60, (24, 24, 3)) + 150 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / f"{index}.png")
        labels = ";".join(name for name, has in zip(NAMES, bright, strict=True) if has)
        rows.append(f"{index}.png,{labels},{index // 2}")
    (tmp_path / "data" / "train.csv").write_text("\n".join(rows))
    return [
        "model.name=lookupvit_ti16_3x3",
        "model.overrides={width: 16, depth: 1, num_heads: 2, tubelet: [1, 8, 8], compressed_size: [1, 1, 1]}",
        f"output_dir={tmp_path / 'run'}",
        "data.dataset=kinetics",
        f"data.root={tmp_path / 'data'}",
        "data.num_classes=3",
        "data.val_fraction=0.3",
        "data.crop=16",
        "data.short_side=20",
        "data.workers=0",
        "augment.mixup=0.2",
        "optim.loss=sigmoid",
        "optim.lr=0.01",
        "optim.batch_size=8",
        "optim.micro_batch_size=8",
        "optim.epochs=4",
        "optim.warmup_epochs=0",
        "eval.clips=1",
        "eval.crops=1",
        "runtime.precision=fp32",
        "runtime.threads=1",
        "log.attention_clips=1",
    ]


@pytest.mark.slow
def test_train_test_and_predict(tmp_path, settings, shell):
    metrics = pytest.importorskip("sklearn.metrics")
    run, config = tmp_path / "run", str(ROOT / "configs" / "imagenet_5x5.yaml")
    output = shell([sys.executable, str(ROOT / "tools" / "train_net.py"), "--cfg", config, *settings])
    assert "of 20 groups in the list" in output
    assert read_description(run)["multi_label"] is True
    output = shell([sys.executable, str(ROOT / "tools" / "test_net.py"), "--cfg", str(run / "config.yaml")])
    predictions = Predictions.load(run / "predictions" / "1x1.npz")
    logits, labels = predictions.video_logits(), predictions.labels
    expected = {
        name: {
            "videos": int(labels[:, k].sum()),
            "ap": 100 * metrics.average_precision_score(labels[:, k], logits[:, k]),
        }
        for k, name in enumerate(predictions.class_names)
    }
    report = json.loads((run / "predictions" / "1x1.json").read_text())
    assert report["class_ap"] == {name: pytest.approx(entry) for name, entry in expected.items()}
    mean = np.mean([entry["ap"] for entry in expected.values()])
    assert report["views"]["1x1"]["mAP"] == pytest.approx(mean)
    assert log_records(run, "val")[-1]["mAP"] == pytest.approx(mean)
    assert f"1x1 views: mAP {mean:.2f} % (mean of 3 classes" in output
    assert f"1x1 views: mAP {mean:.2f} %" in summarize_run(run)

    answers = tmp_path / "answers.json"
    arguments = [str(tmp_path / "data"), "--run", str(run), "--json", str(answers), "--logits"]
    shell([sys.executable, str(ROOT / "tools" / "predict.py"), *arguments])
    for answer in json.loads(answers.read_text())["videos"]:
        sigmoids = 1 / (1 + np.exp(-np.array(answer["logits"])))
        found = {entry["class"]: entry["probability"] for entry in answer["top"]}
        assert [found[name] for name in predictions.class_names] == pytest.approx(sigmoids.tolist(), abs=1e-6)


@pytest.mark.parametrize("setting", ["optim.loss=softmax", "data.balance_classes=true"])
def test_settings_for_one_class_per_video_are_refused(settings, setting):
    config = load_config(str(ROOT / "configs" / "imagenet_5x5.yaml"), [*settings, setting])
    with pytest.raises(ConfigError, match=rf"{setting.partition('=')[0]}: found .*several labels per video in .*csv"):
        Classification(config, None).count_samples()
