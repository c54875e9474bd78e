"""Pixels and logits in transformers' Auto classes, pipelines and Trainer are those of this library."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT
from support.videos import encode

import lookupvivit
from data_pipelines.io.errors import DataError
from lookupvivit.training.losses import smooth_one_hot, softmax_cross_entropy
from lookupvivit.weights.files import WeightsError, save_model

transformers = pytest.importorskip("transformers", minversion="5.23", reason="needs transformers 5.23")
from lookupvivit.transformers import (  # noqa: E402
    LookupViTForVideoClassification,
    LookupViTVideoProcessor,
    convert_run,
)

SMALL = {"width": 16, "depth": 2, "num_heads": 2}
VIDEO = {
    "name": "lookupvivit_pico8x2_4x4x4",
    "num_classes": 6,
    "overrides": {"input_size": [4, 16, 16], "compressed_size": [2, 1, 1], **SMALL},
    "class_names": ["a", "b", "c", "d", "e", "à gauche"],
    "preprocessing": {"frames": 4, "stride": 2, "short_side": 20, "crop": 16, "range": [-1, 1]},
}
IMAGE = {
    "name": "lookupvit_ti16_5x5",
    "num_classes": 6,
    "overrides": {"input_size": [1, 32, 32], "compressed_size": [1, 1, 1], **SMALL},
    "class_names": ["a", "b", "c", "d", "e", "f"],
    "preprocessing": {"frames": 1, "stride": 1, "short_side": 40, "crop": 32, "range": [-1, 1], "resize": "area"},
}
OF_KIND = {
    "video": (VIDEO, transformers.AutoModelForVideoClassification, transformers.AutoVideoProcessor),
    "image": (IMAGE, transformers.AutoModelForImageClassification, transformers.AutoImageProcessor),
}


def save_run(folder, description):
    """A run directory with random weights, also in the classifiers."""
    torch.manual_seed(0)
    model = lookupvivit.create_model(description["name"], description["num_classes"], **description["overrides"])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(folder, model.state_dict(), description)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """For each kind of model, its run directory and its folder for transformers."""
    root = tmp_path_factory.mktemp("transformers")
    pairs = {kind: (save_run(root / f"{kind}_run", OF_KIND[kind][0]), root / kind) for kind in OF_KIND}
    for run, folder in pairs.values():
        convert_run(run, folder)
    return pairs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A video and an image to classify."""
    root = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "photo.jpg")
    return {"video": str(encode(root / "clip.mp4")), "image": str(root / "photo.jpg")}


def reference(run, file):
    """The model of a run directory, its input for a file, and its logits."""
    model = lookupvivit.load_model(run)
    pixels = lookupvivit.preprocess_of(model)(file)[None]  # (1, 3, T, H, W)
    with torch.no_grad():
        return model, pixels, model(pixels).logits


@pytest.mark.parametrize("kind", OF_KIND)
@torch.no_grad()
def test_pixels_and_logits_are_bit_identical(kind, folders, files):
    run, folder = folders[kind]
    _, pixels, logits = reference(run, files[kind])
    _, auto_model, auto_processor = OF_KIND[kind]
    model, processor = auto_model.from_pretrained(folder), auto_processor.from_pretrained(folder)
    inputs = processor([files[kind], files[kind]])
    expected = pixels.transpose(1, 2) if kind == "video" else pixels[:, :, 0]
    assert torch.equal(inputs["pixel_values"], expected.expand(2, *expected.shape[1:]))
    assert not model.training and torch.equal(model(processor(files[kind])["pixel_values"]).logits, logits)
    assert list(model.config.id2label.values()) == OF_KIND[kind][0]["class_names"]


@pytest.mark.parametrize("kind", OF_KIND)
def test_pipelines_report_the_same_classes(kind, folders, files):
    run, folder = folders[kind]
    _, _, logits = reference(run, files[kind])
    scores, labels = logits[0].softmax(-1).topk(3)
    classify = transformers.pipeline(f"{kind}-classification", str(folder))
    found = classify(files[kind], top_k=3)
    assert [entry["label"] for entry in found] == [OF_KIND[kind][0]["class_names"][label] for label in labels]
    np.testing.assert_allclose([entry["score"] for entry in found], scores, rtol=1e-5)
    assert [entry[:3] for entry in classify([files[kind]] * 2, top_k=3)] == [found] * 2


@pytest.mark.parametrize("kind", OF_KIND)
def test_a_folder_is_also_a_run_directory(kind, folders, files):
    run, folder = folders[kind]
    again, _, found = reference(folder, files[kind])
    assert torch.equal(found, reference(run, files[kind])[2]) and again.description == OF_KIND[kind][0]
    processor = {"video": "video_preprocessor_config.json", "image": "preprocessor_config.json"}[kind]
    expected = {"config.json", "model.json", "model.safetensors", "modeling_lookupvivit.py", processor}
    assert {file.name for file in folder.iterdir()} == expected


@pytest.mark.slow
@pytest.mark.parametrize("how", ["import", "trust_remote_code"])
def test_a_new_process_loads_a_folder(how, folders, files, tmp_path):
    """After the import, or without it from the folder's own module; what it saves again is the same."""
    run, folder = folders["video"]
    code = f"""
import sys, torch, transformers
if {how == "import"}:
    import lookupvivit.transformers
else:
    assert "lookupvivit" not in sys.modules
trust = {how == "trust_remote_code"}
processor = transformers.AutoVideoProcessor.from_pretrained({str(folder)!r}, trust_remote_code=trust)
model = transformers.AutoModelForVideoClassification.from_pretrained({str(folder)!r}, trust_remote_code=trust)
print(model(**processor({files["video"]!r})).logits.tolist())
classify = transformers.pipeline("video-classification", {str(folder)!r}, trust_remote_code=trust)
assert len(classify({files["video"]!r})) == 5
model.save_pretrained({str(tmp_path / "saved")!r})
processor.save_pretrained({str(tmp_path / "saved")!r})
"""
    environment = {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout.splitlines()[0])), reference(run, files["video"])[2])
    assert {file.name: read(file) for file in (tmp_path / "saved").iterdir()} == {
        file.name: read(file) for file in folder.iterdir()
    }


def read(file):
    return json.loads(file.read_text()) if file.suffix == ".json" else file.read_bytes()


def test_the_loss_is_that_of_training_runs(folders):
    """The sum over both classifiers."""
    model = transformers.AutoModelForVideoClassification.from_pretrained(folders["video"][1])
    video, labels = torch.randn(3, 4, 3, 16, 16), torch.tensor([0, 5, 2])
    output, ours = model(pixel_values=video, labels=labels), model.model(video.transpose(1, 2))
    targets = smooth_one_hot(labels, 6)
    expected = sum(softmax_cross_entropy(ours[name], targets) for name in ("compressed_logits", "lookup_logits"))
    torch.testing.assert_close(output.loss, expected)
    assert list(output) == ["loss", "logits"] and len(model(video, return_dict=False)) == 1
    several = type(model.config).from_description({**model.config.description, "multi_label": True})
    assert several.description == {**model.config.description, "multi_label": True}
    model.config.problem_type = several.problem_type
    several = torch.eye(6)[labels]
    expected = sum(
        torch.nn.functional.binary_cross_entropy_with_logits(ours[name], several) for name in model.model.supervised
    )
    torch.testing.assert_close(model(video, several).loss, expected)


def test_a_call_may_choose_the_compressed_size(folders):
    model = transformers.AutoModelForVideoClassification.from_pretrained(folders["video"][1])
    video = torch.randn(1, 4, 3, 16, 16)
    expected = model.model(video.transpose(1, 2), compressed_size=(1, 2, 2)).logits
    assert torch.equal(model(video, compressed_size=(1, 2, 2)).logits, expected)
    assert not torch.equal(model(video).logits, expected)
    expected = model.model(video.transpose(1, 2), keep="motion:0.5").logits
    assert torch.equal(model(video, keep="motion:0.5").logits, expected)


@pytest.mark.parametrize("kind", OF_KIND)
def test_other_classes_get_new_classifiers(kind, folders, tmp_path):
    description, auto_model, _ = OF_KIND[kind]
    arguments = {"num_labels": 3, "ignore_mismatched_sizes": True}
    model, trained = auto_model.from_pretrained(folders[kind][1], **arguments), lookupvivit.load_model(folders[kind][0])
    for name, tensor in model.model.state_dict().items():
        if "head" in name:
            assert not tensor.any() and tensor.shape[0] == 3
        else:
            assert torch.equal(tensor, trained.state_dict()[name])
    model.save_pretrained(tmp_path)
    again = lookupvivit.load_model(tmp_path).description
    expected = {key: value for key, value in description.items() if key != "class_names"}
    assert again == {**expected, "num_classes": 3}


@pytest.mark.parametrize("name", ["vivit_pico8x2", "tokenlearner_pico8x2_at2", "perceiver_pico8x2"])
@torch.no_grad()
def test_baselines(name, tmp_path):
    description = {"name": name, "num_classes": 2, "overrides": {}, "preprocessing": VIDEO["preprocessing"]}
    convert_run(save_run(tmp_path / "run", description), tmp_path / "folder")
    video = torch.randn(1, 8, 3, 64, 64)
    model = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path / "folder")
    expected = lookupvivit.load_model(tmp_path / "run")(video.transpose(1, 2).contiguous()).logits
    assert torch.equal(model(video).logits, expected)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_a_new_model_is_initialised_as_here(folders):
    config = transformers.AutoConfig.from_pretrained(folders["video"][1])
    torch.manual_seed(1)
    found = transformers.AutoModelForVideoClassification.from_config(config).model.state_dict()
    torch.manual_seed(1)
    expected = lookupvivit.create_model(VIDEO["name"], 6, **VIDEO["overrides"]).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_inputs_of_the_video_processor(files):
    processor, video = LookupViTVideoProcessor(preprocessing=VIDEO["preprocessing"]), files["video"]
    frames = np.random.default_rng(0).integers(0, 255, (9, 30, 40, 3), dtype=np.uint8)
    expected = processor(frames)["pixel_values"]
    assert expected.shape == (1, 4, 3, 16, 16)
    for same in (
        torch.from_numpy(frames),
        frames.transpose(0, 3, 1, 2),
        list(frames),
        [Image.fromarray(frame) for frame in frames],
        frames[None],
        [frames],
    ):
        assert torch.equal(processor(same)["pixel_values"], expected)
    assert torch.equal(processor(Path(video))["pixel_values"], processor([video])["pixel_values"])
    assert processor(video, num_frames=6)["pixel_values"].shape == (1, 6, 3, 16, 16)
    every = processor(frames, do_sample_frames=False)["pixel_values"]
    assert every.shape[1] == 9 and torch.equal(every[:, 0:7:2], processor(frames[:7])["pixel_values"])
    assert isinstance(processor(video, return_tensors="np")["pixel_values"], np.ndarray)


def test_errors_are_one_line(folders, tmp_path):
    run, folder = folders["video"]
    with pytest.raises(
        ValueError, match=r"^architecture: found 'lookupvivit_pico8x2_4x4x4', a model for videos, which A"
    ):
        transformers.AutoModelForImageClassification.from_pretrained(folder)
    model = LookupViTForVideoClassification.from_lookupvivit(lookupvivit.load_model(run))
    with pytest.raises(ValueError, match=r"^pixel_values: found shape \(1, 3, 4, 16, 16\), expected \(B, T, 3, H, W\)"):
        model(torch.randn(1, 3, 4, 16, 16))
    with pytest.raises(DataError, match=r"^video: found an array of float32"):
        LookupViTVideoProcessor(preprocessing=VIDEO["preprocessing"])(np.zeros((4, 16, 16, 3), np.float32))
    with pytest.raises(DataError, match=r"^preprocessing.crop: missing"):
        LookupViTVideoProcessor(preprocessing={"frames": 1, "stride": 1, "short_side": 20})
    description = {key: value for key, value in VIDEO.items() if key != "preprocessing"}
    with pytest.raises(WeightsError, match=r"^preprocessing: unknown"):
        convert_run(save_run(tmp_path / "run", description), tmp_path / "folder")


def test_the_files_of_a_run_are_not_replaced(tmp_path):
    run = save_run(tmp_path / "run", VIDEO)
    before = (run / "model.json").read_bytes()
    with pytest.raises(DataError, match=r"model\.safetensors: is read and would be replaced"):
        convert_run(run, run)
    assert (run / "model.json").read_bytes() == before and len(list(run.iterdir())) == 2


def test_activation_checkpointing_keeps_gradients(folders):
    model = transformers.AutoModelForVideoClassification.from_pretrained(folders["video"][1])
    video, labels = torch.randn(2, 4, 3, 16, 16), torch.tensor([0, 1])
    gradients = []
    for enable in (model.activation_checkpointing_enable, model.activation_checkpointing_disable):
        enable()
        model.zero_grad()
        model(video, labels).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


class Clips(torch.utils.data.Dataset):
    """Random clips of two classes, which differ in brightness."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(index))
        return {"pixel_values": noise * 0.1 + index % 2, "labels": index % 2}


@pytest.mark.slow
def test_trainer_trains_saves_and_resumes(folders, tmp_path):
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
    run, folder = folders["video"]

    def trainer(steps):
        torch.manual_seed(0)
        model = transformers.AutoModelForVideoClassification.from_pretrained(
            folder, num_labels=2, ignore_mismatched_sizes=True
        )
        arguments = transformers.TrainingArguments(
            *(str(tmp_path / "trainer"),),
            max_steps=steps,
            save_steps=4,
            per_device_train_batch_size=8,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            eval_strategy="steps",
            eval_steps=4,
            report_to=[],
            use_cpu=True,
            seed=0,
        )
        processor = transformers.AutoVideoProcessor.from_pretrained(folder)
        return transformers.Trainer(
            model,
            arguments,
            train_dataset=Clips(),
            eval_dataset=Clips(),
            processing_class=processor,
            compute_metrics=lambda result: {"top1": (result.predictions.argmax(-1) == result.label_ids).mean()},
        )

    uninterrupted = trainer(12)
    uninterrupted.train()
    assert uninterrupted.evaluate()["eval_top1"] >= 0.9
    resumed = trainer(12)
    resumed.train(resume_from_checkpoint=str(tmp_path / "trainer" / "checkpoint-8"))
    for name, tensor in uninterrupted.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    resumed.save_model(str(tmp_path / "final"))
    ours = lookupvivit.load_model(tmp_path / "final")
    video = Clips()[1]["pixel_values"][None]
    assert torch.equal(ours(video.transpose(1, 2).contiguous()).logits, resumed.model.eval()(video).logits)
    assert lookupvivit.preprocess_of(ours) == lookupvivit.preprocess_of(lookupvivit.load_model(run))
    assert transformers.AutoVideoProcessor.from_pretrained(tmp_path / "final").preprocessing["crop"] == 16
