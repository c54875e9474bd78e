"""Tools refuse to replace what they read, under whatever name the outputs would have."""

import os

import pytest
from PIL import Image
from support.in_process import run_tool
from support.saved_models import save_random_model
from support.videos import encode

from data_pipelines.io.errors import DataError
from data_pipelines.io.lock import locked
from data_pipelines.io.real_paths import require_not_among


def test_real_paths_are_compared(tmp_path):
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "file"
    file.touch()
    (tmp_path / "linked").symlink_to(tmp_path / "folder")
    (tmp_path / "link").symlink_to(file)
    for output in (file, tmp_path / "linked" / "file", tmp_path / "link", os.path.relpath(file), f"{tmp_path}//link"):
        for source in (file, tmp_path / "linked" / "file", tmp_path / "link"):
            with pytest.raises(DataError, match="is read"):
                require_not_among([tmp_path / "other", output], [source])
    require_not_among([tmp_path / "other", tmp_path / "folder"], [file])


def test_tools_do_not_replace_their_inputs(tmp_path, monkeypatch, capsys):
    run, videos = save_random_model(tmp_path / "run"), tmp_path / "videos"
    videos.mkdir()
    clip = encode(videos / "clip.mp4", frames=8)
    for name in ("clip.mp4.png", "clip_attention.png"):  # figures that earlier calls may have drawn
        Image.new("RGB", (80, 80)).save(videos / name)
    before = {file: file.read_bytes() for file in (*videos.iterdir(), *run.iterdir())}
    for tool, *words in (
        ("predict.py", clip, "--json", clip),
        ("predict.py", videos, "--output", videos),
        ("visualize_attention.py", videos, "--output", videos),
        ("export.py", "--onnx", run / "model.safetensors"),
        ("export.py", "--onnx", run / "model.json"),
    ):
        status, _, error = run_tool(monkeypatch, capsys, tool, *words, "--run", run)
        assert status == 2 and ": is read" in error.splitlines()[-1], (tool, error)
        assert {file: file.read_bytes() for file in (*videos.iterdir(), *run.iterdir())} == before


def test_results_of_a_robustness_test_have_one_writer(tmp_path, monkeypatch, capsys):
    run, images = save_random_model(tmp_path / "run"), tmp_path / "images"
    images.mkdir()
    with locked(tmp_path / "results" / ".lock"):
        words = ("--run", run, "--imagenet-r", images, "--output", tmp_path / "results")
        status, _, error = run_tool(monkeypatch, capsys, "test_robustness.py", *words)
    assert status == 2 and f"error: {tmp_path / 'results'}: in use by process {os.getpid()} on " in error
