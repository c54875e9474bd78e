"""What leaves Python computes what the model computes: torch.export programs and ONNX files."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import lookupvivit
from lookupvivit.evaluation.predictor import Predictor
from lookupvivit.weights.export import TOLERANCES, ExportError, export_onnx, export_program
from lookupvivit.weights.files import WeightsError

SMALL = {"width": 24, "depth": 2, "num_heads": 3}
VIDEO = {**SMALL, "input_size": (4, 32, 32), "tubelet": (2, 8, 8)}
IMAGE = {**SMALL, "input_size": (1, 32, 32), "tubelet": (1, 8, 8)}
CASES = {
    "video, fewer": ("lookupvivit_b16x2_9x9x8", {**VIDEO, "compressed_size": (1, 3, 3)}, None),
    "video, more": ("lookupvivit_b16x2_9x9x8", {**VIDEO, "compressed_size": (1, 3, 3)}, (2, 4, 3)),
    "video, one head": ("lookupvivit_b16x2_9x9x8", {**VIDEO, "classifiers": "compressed"}, (2, 3, 2)),
    "image, fewer": ("lookupvit_b16_5x5", {**IMAGE, "compressed_size": (1, 3, 3)}, None),
    "image, as many": ("lookupvit_b16_5x5", {**IMAGE, "compressed_size": (1, 4, 4)}, None),
    "image, other": ("lookupvit_b16_5x5", {**IMAGE, "compressed_size": (1, 3, 3)}, (1, 2, 4)),
    "ViT": ("vit_b16", IMAGE, None),
    "ViT, class token": ("vit_b16", {**IMAGE, "pooling": "token"}, None),
    "ViViT": ("vivit_b16x2", VIDEO, None),
}
QUICK = ("video, more", "image, fewer", "ViT, class token")  # of ONNX
PERCEIVER = {"input_size": (4, 16, 16), "tubelet": (2, 4, 4), "num_latents": 4, "width": 24, "depth": 1, "num_heads": 3}


def build(name, overrides, classes=5):
    torch.manual_seed(0)
    model = lookupvivit.create_model(name, classes, **overrides)
    for parameter_name, parameter in model.named_parameters():
        if "head.weight" in parameter_name:  # zero at first: all outputs would be alike
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def shape_of(name, overrides, batch=1):
    size = overrides["input_size"]
    return (batch, 3, *size) if "x2" in name else (batch, 3, *size[1:])


@pytest.mark.parametrize("case", CASES)
def test_a_program_gives_what_the_model_gives_for_any_batch(case):
    name, overrides, size = CASES[case]
    model = build(name, overrides)
    program = export_program(model, shape_of(name, overrides), size).module()
    for batch in (1, 2, 5):
        video = torch.randn(shape_of(name, overrides, batch))
        expected = model(video) if size is None else model(video, compressed_size=size)
        found = program(video)
        assert list(found) == list(expected)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_an_onnx_file_gives_what_the_model_gives(case, tmp_path):
    import onnxruntime

    name, overrides, size = CASES[case]
    model, file = build(name, overrides), tmp_path / "model.onnx"
    difference = export_onnx(model, file, shape_of(name, overrides), size)
    assert 0 <= difference < 1e-4
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]
    video = torch.randn(shape_of(name, overrides, 4))
    expected = model(video) if size is None else model(video, compressed_size=size)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(expected)
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "batch"
    metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata == json.loads((tmp_path / "model.onnx.json").read_text())
    assert metadata["name"] == name and metadata["num_classes"] == 5
    assert metadata.get("compressed_size") == (None if size is None else list(size))
    (logits,) = session.run(["logits"], {"video": video.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected.logits.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_small_precisions_and_uint8_frames(precision, tmp_path):
    import onnxruntime

    name, overrides, _ = CASES["video, fewer"]
    model, file, full = build(name, {**overrides, "width": 96}), tmp_path / "small.onnx", tmp_path / "full.onnx"
    export_onnx(model, full, shape_of(name, overrides))
    assert export_onnx(model, file, shape_of(name, overrides), precision=precision, from_uint8=True) > 0
    assert file.stat().st_size < (0.7 if precision == "fp16" else 0.5) * full.stat().st_size
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (frames,) = session.get_inputs()
    assert (frames.name, frames.type, frames.shape) == ("frames", "tensor(uint8)", ["batch", 4, 32, 32, 3])
    clips = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), dtype=np.uint8)
    (logits,) = session.run(["logits"], {"frames": clips})
    expected = model(torch.from_numpy(clips).movedim(-1, 1) / 127.5 - 1).logits.detach()
    scale = float(expected.abs().max())
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=scale * TOLERANCES[precision])


def test_openvino_reads_the_file(tmp_path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    name, overrides, _ = CASES["video, fewer"]
    model, file = build(name, overrides), tmp_path / "model.onnx"
    export_onnx(model, file, shape_of(name, overrides))
    video = torch.randn(shape_of(name, overrides, 2))
    outputs = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"video": video.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs["logits"]), model(video).logits.detach(), rtol=1e-3, atol=1e-4)


def test_a_program_shares_and_names_the_weights_of_the_model(tmp_path):
    model = build("lookupvit_b16_5x5", IMAGE)
    program = export_program(model, (1, 3, 32, 32), (1, 3, 3))
    assert set(program.state_dict) == set(model.state_dict())
    assert model.compressed_size == (1, 5, 5)
    torch.export.save(program, tmp_path / "model.pt2")
    again, image = torch.export.load(tmp_path / "model.pt2").module(), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(again(image)["logits"], model(image, compressed_size=(1, 3, 3)).logits)


LOAD_WITHOUT_THE_LIBRARY = """
import sys
import torch
sys.modules["lookupvivit"] = sys.modules["data_pipelines"] = None  # importing them fails
program = torch.export.load(sys.argv[1]).module()
image, expected = torch.load(sys.argv[2])
outputs = program(image)
assert type(outputs) is dict and list(outputs) == list(expected), outputs
for name, output in outputs.items():
    torch.testing.assert_close(output, expected[name])
"""


@pytest.mark.slow
def test_a_saved_program_needs_only_torch(tmp_path):
    model, image = build("lookupvit_b16_5x5", IMAGE), torch.randn(2, 3, 32, 32)
    torch.export.save(export_program(model, (1, 3, 32, 32)), tmp_path / "model.pt2")
    torch.save((image, dict(model(image))), tmp_path / "example.pt")
    command = [sys.executable, "-c", LOAD_WITHOUT_THE_LIBRARY, tmp_path / "model.pt2", tmp_path / "example.pt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("case", "keep"),
    [
        ("video, more", "motion:0.5"),
        ("ViT, class token", 0.5),
        *(
            pytest.param(case, keep, marks=pytest.mark.slow)
            for case, keep in [("video, fewer", "attention:0.5"), ("image, other", 0.4), ("ViViT", "merge:0.5")]
        ),
    ],
)
def test_a_program_keeps_the_tokens_that_the_model_keeps(case, keep):
    name, overrides, size = CASES[case]
    model, call = build(name, overrides), {} if size is None else {"compressed_size": size}
    program = export_program(model, shape_of(name, overrides), size, keep=keep)
    values = [node.meta.get("val") for node in program.graph.nodes]
    assert max(value.dim() for value in values if isinstance(value, torch.Tensor)) == 5
    for batch in (1, 3):
        video = torch.randn(shape_of(name, overrides, batch))
        torch.testing.assert_close(program.module()(video)["logits"], model(video, keep=keep, **call).logits)


@pytest.mark.slow
def test_an_onnx_file_keeps_the_tokens_that_the_model_keeps(tmp_path):
    """The export compares the logits."""
    pytest.importorskip("onnxruntime")
    name, overrides, size = CASES["video, more"]
    export_onnx(build(name, overrides), tmp_path / "model.onnx", shape_of(name, overrides), size, keep="motion:0.5")
    assert json.loads((tmp_path / "model.onnx.json").read_text())["keep"] == "motion:0.5"


@pytest.mark.parametrize("case", [*CASES, "Perceiver"])
def test_programs_have_tensors_of_at_most_five_dimensions(case):
    """More are supported by neither XNNPACK nor Core ML."""
    name, overrides, size = {**CASES, "Perceiver": ("perceiver_pico8x2", PERCEIVER, None)}[case]
    program = export_program(build(name, overrides), shape_of(name, overrides), size)
    values = [node.meta.get("val") for node in program.graph.nodes]
    assert max(value.dim() for value in values if isinstance(value, torch.Tensor)) == 5


def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path):
    model = build("lookupvit_b16_5x5", IMAGE)
    with pytest.raises(ExportError, match="differs from the model by"):
        export_onnx(model, tmp_path / "model.onnx", (1, 3, 32, 32), tolerance=-1.0)
    assert not list(tmp_path.iterdir())


def test_a_json_file_of_the_user_is_not_replaced(tmp_path):
    (tmp_path / "model.onnx.json").write_text("of the user")
    with pytest.raises(ExportError, match=r"model\.onnx\.json: exists without model\.onnx"):
        export_onnx(build("vit_b16", IMAGE), tmp_path / "model.onnx", (1, 3, 32, 32))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["of the user"]


def test_the_sizes_that_a_prediction_refuses_are_refused(tmp_path):
    """A larger input has a larger grid."""
    model = build("lookupvit_b16_5x5", {**IMAGE, "compressed_size": (1, 3, 3)})
    model.description = {"preprocessing": {"frames": 1, "stride": 1, "short_side": 32, "crop": 32, "range": [-1, 1]}}
    with pytest.raises(
        WeightsError, match=r"compressed_size: found 1x5x4 \(TxHxW\), expected at most 1x4x4"
    ) as refused:
        Predictor(model, compressed_size=(1, 5, 4))
    for export in (export_program, lambda *arguments: export_onnx(model, tmp_path / "model.onnx", *arguments[1:])):
        with pytest.raises(ExportError) as error:
            export(model, (1, 3, 32, 32), (1, 5, 4))
        assert str(error.value) == str(refused.value) and not list(tmp_path.iterdir())
    export_program(model, (1, 3, 40, 32), (1, 5, 4))


def test_mistakes_are_named(monkeypatch, tmp_path):
    with pytest.raises(ExportError, match="or no compressed tokens"):
        export_program(build("vit_b16", IMAGE), (1, 3, 32, 32), (1, 2, 2))
    with pytest.raises(ExportError, match=r"model\.eval\(\)"):
        export_program(build("vit_b16", IMAGE).train(), (1, 3, 32, 32))
    with pytest.raises(ValueError, match="positive"):
        export_program(build("lookupvit_b16_5x5", IMAGE), (1, 3, 32, 32), (1, 0, 2))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ExportError, match=r"needs onnxscript: pip install 'lookupvivit\[export\]'"):
        export_onnx(build("vit_b16", IMAGE), tmp_path / "model.onnx", (1, 3, 32, 32))
