"""tools/export.py."""

import sys

import pytest
import torch

import lookupvivit
from lookupvivit.weights.files import save_model


def save_random_model(run, name, **overrides):
    torch.manual_seed(0)
    model = lookupvivit.create_model(name, 5, **overrides)
    save_model(run, model.state_dict(), {"name": name, "num_classes": 5, "overrides": overrides})


@pytest.mark.cold
@pytest.mark.slow
def test_export_of_a_run_and_errors_of_the_user(tmp_path, shell):
    video_run, perceiver_run, file = tmp_path / "video", tmp_path / "perceiver", tmp_path / "out" / "model.onnx"
    small = {"width": 16, "depth": 1, "num_heads": 2}
    video = {"input_size": (4, 32, 32), "tubelet": (2, 8, 8), "compressed_size": (1, 3, 3)}
    save_random_model(video_run, "lookupvivit_b16x2_9x9x8", **small, **video)
    save_random_model(perceiver_run, "perceiver_pico8x2", **small, stages=1, num_latents=4)

    def export(*arguments, expect=0):
        return shell([sys.executable, "tools/export.py", *map(str, arguments)], expect=expect)

    assert "largest difference" in export("--run", video_run, "--onnx", file, "--compressed-size", "2x2x2")
    assert file.is_file()
    assert "input video (batch, 3, 8, 64, 64)" in export("--run", perceiver_run, "--onnx", file)
    for message, arguments in {
        "not found": ("--run", tmp_path / "nowhere", "--onnx", file),
        "compressed_size: found 3x4x4": ("--run", video_run, "--onnx", file, "--compressed-size", "3x4x4"),
    }.items():
        error = export(*arguments, expect=2)
        assert message in error and error.startswith("error: ") and error.count("\n") == 1, error
    assert "0x2x2" in export("--run", video_run, "--onnx", file, "--compressed-size", "0x2x2", expect=2)
