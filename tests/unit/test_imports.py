"""What importing costs: the model needs no trainer, and the data pipelines no model."""

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        (
            "lookupvivit.models.registry",
            (
                "deepspeed",
                "decord",
                "av",
                "pytorchvideo",
                "fvcore",
                "tensorboard",
                "torchvision",
                "data_pipelines",
                "safetensors",
                "PIL",
                "matplotlib",
                "lookupvivit.visualization",
                "torch._dynamo",
            ),
        ),  # the compiler takes seconds
        ("lookupvivit.weights.files", ("deepspeed", "decord", "av", "pytorchvideo", "fvcore", "tensorboard")),
        ("data_pipelines.datasets.clips", ("lookupvivit", "deepspeed", "fvcore", "tensorboard")),
    ],
)
def test_import_contract(package, absent):
    done = python(f"import sys, {package}; print([m for m in {absent!r} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_attention_maps_come_when_asked_for():
    module = "lookupvivit.visualization"
    done = python(
        f"import sys, lookupvivit; before = {module!r} in sys.modules; lookupvivit.attention_maps; "
        f"print(before, {module!r} in sys.modules, 'matplotlib' in sys.modules, hasattr(lookupvivit, 'attention'))"
    )
    assert done.stdout.strip() == "False True False False", done.stdout + done.stderr


def test_a_saved_model_loads_without_deepspeed(tmp_path):
    code = f"""
import sys; sys.modules["deepspeed"] = None
import pathlib, torch, lookupvivit
from lookupvivit.weights.files import load_model, save_model
small = {{"width": 16, "depth": 1, "num_heads": 2}}
model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 3, **small)
description = {{"name": "lookupvivit_pico8x2_4x4x4", "num_classes": 3, "overrides": small}}
save_model(pathlib.Path({str(tmp_path)!r}), model.state_dict(), description)
clip = torch.randn(1, 3, 8, 64, 64)
print(torch.equal(load_model({str(tmp_path)!r})(clip).logits, model.eval()(clip).logits))
"""
    done = python(code)
    assert done.stdout.strip() == "True", done.stderr
