"""tools/benchmark.py and its memory measurement, which start processes."""

import json
import runpy
import subprocess
import sys

import pytest
import torch
from support.paths import ROOT

from lookupvivit.models.registry import create_model
from lookupvivit.profiling.benchmark_cases import Case, Setting, meta_model
from lookupvivit.profiling.memory_measurement import MemoryMeasurementError, measure_memory

LOOKUPVIVIT, VIVIT = "lookupvivit_pico8x2_4x4x4", "vivit_pico8x2"
TOOL = ROOT / "tools" / "benchmark.py"


def weight_bytes(model):
    return 4 * sum(weight.numel() for weight in model.parameters())


@pytest.mark.slow
def test_measured_training_memory_includes_weights_momentum_and_activations():
    """In a process of its own, whose peak does not include the 1 GiB that this one holds.

    All three exist after the forward pass of the second step; gradients replace activations during the backward pass.
    """
    ballast = torch.ones(2**28)
    memory = measure_memory(Case("vit_ti16"), Setting(batch=4, threads=1), train=True)
    del ballast
    weights = weight_bytes(create_model("vit_ti16", 1000))
    assert 2 * weights + memory.kept < memory.peak < 3 * weights + 3 * memory.kept < 2**29


@pytest.mark.slow
def test_measured_forward_memory_is_that_of_the_weights():
    memory = measure_memory(Case("vit_b16"), Setting(threads=1), train=False)
    weights = weight_bytes(meta_model(Case("vit_b16")))
    assert weights < memory.peak < 1.2 * weights
    assert memory.kept is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "words"), [(Case("nothing"), "^nothing: .*'nothing'"), (Case(LOOKUPVIVIT, None, "triton"), "'triton'")]
)
def test_an_invalid_case_is_reported_by_the_measuring_process(case, words):
    with pytest.raises(MemoryMeasurementError, match=words):
        measure_memory(case, Setting(), train=False)


@pytest.mark.slow
def test_the_tool_prints_tables_and_writes_json(tmp_path):
    options = ["--train", "--operators", "--rounds", "3", "--batch-size", "2", "--threads", "1"]
    options += ["--kernels", "cpu", "--json", str(tmp_path / "speed.json")]
    command = [sys.executable, str(TOOL), VIVIT, f"{LOOKUPVIVIT}@4x3x3", *options]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "speed.json").read_text())
    assert torch.__version__ in results["machine"] and results["setting"]["dtype"] == "fp32"
    assert [row["model"] for row in results["rows"]] == [VIVIT, f"{LOOKUPVIVIT}@4x3x3"]
    assert [row["kernels"] for row in results["rows"]] == [None, "cpu"]
    for row in results["rows"]:
        forward, training = row["phases"]["forward"], row["phases"]["training"]
        assert row["input_size"] == [8, 64, 64]
        assert forward["kept_bytes"] is None and len(forward["times"]) == 3
        assert 0 < training["kept_bytes"] < training["peak_bytes"]
        assert row["model"] in process.stdout
    assert all(word in process.stdout for word in (" 8x64x64 ", "sum", "fp32", "multiply-adds"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([VIVIT, "--operators", "--compile"], "--operators"),
        ([VIVIT, "--json", "."], "--json: .: found a folder"),
        (["vivit_b16x3"], "error: name: found 'vivit_b16x3'"),
    ],
)
def test_invalid_arguments_are_reported_in_the_last_line(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOL), run_name="__main__")
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
