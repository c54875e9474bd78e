"""What an import loads: models need no trainer, and data pipelines no model."""

import subprocess
import sys

import pytest

TRAINING_ONLY = ("deepspeed", "fvcore", "tensorboard")
DECODERS = ("decord", "av", "pytorchvideo")
UNNEEDED_BY_MODELS = (
    *TRAINING_ONLY,
    *DECODERS,
    "torchvision",
    "data_pipelines",
    "safetensors",
    "PIL",
    "matplotlib",
    "lookupvivit.visualization",
    "torch._dynamo",  # the compiler takes seconds to import
)


def run_python(code: str) -> str:
    """Run code in a new process and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("lookupvivit.models.registry", UNNEEDED_BY_MODELS),
        ("lookupvivit.weights.files", (*TRAINING_ONLY, *DECODERS)),
        ("data_pipelines.datasets.clips", ("lookupvivit", *TRAINING_ONLY)),
    ],
)
def test_an_import_does_not_load(module, absent):
    assert run_python(f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])") == "[]"


def test_public_functions_are_imported_on_first_use():
    code = """
import sys, lookupvivit
before = {module for module in sys.modules if module.startswith("lookupvivit.")} | {"torch"} & set(sys.modules)
assert all(callable(getattr(lookupvivit, name)) for name in lookupvivit.__all__)
assert set(lookupvivit.__all__) <= set(dir(lookupvivit)) and not hasattr(lookupvivit, "attention")
print(sorted(before), "matplotlib" in sys.modules)
"""
    assert run_python(code) == "[] False"


def test_a_saved_model_loads_without_deepspeed(tmp_path):
    code = f"""
import sys; sys.modules["deepspeed"] = None
import pathlib, torch, lookupvivit
from lookupvivit.weights.files import save_model
overrides = {{"width": 16, "depth": 1, "num_heads": 2}}
model = lookupvivit.create_model("lookupvivit_pico8x2_4x4x4", 3, **overrides)
description = {{"name": "lookupvivit_pico8x2_4x4x4", "num_classes": 3, "overrides": overrides}}
save_model(pathlib.Path({str(tmp_path)!r}), model.state_dict(), description)
clip = torch.randn(1, 3, 8, 64, 64)
print(torch.equal(lookupvivit.load_model({str(tmp_path)!r})(clip).logits, model.eval()(clip).logits))
"""
    assert run_python(code) == "True"
