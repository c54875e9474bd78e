"""tools/visualize_attention.py by its command line."""

import shutil
import sys

import av
import numpy as np
import pytest
from PIL import Image
from support.in_process import run_tool
from support.paths import ROOT
from support.saved_models import VIDEO_PREPROCESSING, save_random_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("models") / "video", depth=2)


@pytest.fixture
def visualize(monkeypatch, capsys, run):
    """Run the tool in this process; returns exit status, output and errors."""
    return lambda *arguments, run=run: run_tool(monkeypatch, capsys, "visualize_attention.py", "--run", run, *arguments)


def board_images(folder):
    """Tag -> number of images that TensorBoard reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder), size_guidance={"images": 0})
    board.Reload()
    return {tag: len(board.Images(tag)) for tag in board.Tags()["images"]}


def test_readable_files_are_drawn_and_the_others_named(tmp_path, small_set, run, shell):
    clips, out = tmp_path / "clips", tmp_path / "out"
    (clips / "sub").mkdir(parents=True)
    shutil.copy(small_set / "videos" / "1.mp4", clips / "one.mp4")
    shutil.copy(small_set / "videos" / "2.mp4", clips / "sub" / "日本 $2.mp4")
    Image.fromarray(np.zeros((90, 70, 3), np.uint8)).save(clips / "one.png")
    (clips / "corrupt.mp4").write_bytes(b"no video")
    command = [sys.executable, ROOT / "tools" / "visualize_attention.py", clips, "--model", run, "--output", out]
    options = ["--blocks", "all", "--gif", "--tensorboard", tmp_path / "board"]
    output = shell([str(argument) for argument in command + options], expect=1)
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "corrupt.mp4" in error and "1 of 4 files" in output
    assert "Traceback" not in output and "Warning" not in output
    names = {"one.mp4": "one.mp4", "one.png": "one.png", "sub/日本 $2.mp4": "sub/日本 $2"}
    written = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert written == {f"{stem}_attention.{kind}" for stem in names.values() for kind in ("png", "mp4", "gif")}
    with av.open(str(out / "sub" / "日本 $2_attention.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4
    expected = {f"attention/{name}": 1 for name in names} | {f"attention_video/{name}": 4 for name in names}
    assert board_images(tmp_path / "board") == expected


def test_sizes_tokens_heads_and_start(tmp_path, small_set, visualize):
    video = tmp_path / "1.mp4"  # in the output folder; it must not be overwritten
    shutil.copy(small_set / "videos" / "1.mp4", video)
    selection = ("--sizes", "4x2x2,2x3x3", "--tokens", "0,1,1", "1,0,1", "--heads", "1", "--start", "0.08")
    status, *_ = visualize(video, "--output", tmp_path, *selection, "--fps", "12.5")
    assert status == 0 and video.read_bytes() == (small_set / "videos" / "1.mp4").read_bytes()
    with av.open(str(tmp_path / "1_attention.mp4")) as written:
        assert written.streams.video[0].average_rate == 12.5
    assert Image.open(tmp_path / "1_attention.png").height > 5 * 176  # frames, and two tokens at two sizes


def test_an_image_model_draws_all_sizes_in_one_figure(tmp_path, visualize):
    preprocessing = {**VIDEO_PREPROCESSING, "frames": 1, "short_side": 32, "crop": 32}
    options = {"preprocessing": preprocessing, "tubelet": [1, 8, 8], "depth": 2}
    run = save_random_model(tmp_path / "image", "lookupvit_ti16_5x5", **options)
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    sizes = ("--sizes", "1x3x3,1x5x5", "--image-sizes", "32,48")
    status, output, _ = visualize(tmp_path / "a.png", "--output", tmp_path / "out", *sizes, run=run)
    assert status == 0 and output.startswith("a.png: ") and output.count("%") == 4  # one prediction per map
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a_attention.png"]
    assert Image.open(tmp_path / "out" / "a_attention.png").width > 5 * 256  # the image and its four maps


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--blocks", "0,2"], ["blocks: found 2", "0 to 1"]),
        (["--heads", "2"], ["heads: found 2", "0 to 1"]),
        (["--tokens", "0,4,0", "--heads", "1"], ["tokens: found 0,4,0", "3,3,3"]),
        (["--tokens", "0,2,0", "--sizes", "4x3x3,4x2x2"], ["tokens: found 0,2,0", "3,1,1", "4x2x2"]),
        (["--blocks", "first"], ["--blocks", "'first'"]),
        (["--sizes", "3x3"], ["--sizes", "'3x3'", "TxHxW"]),
        (["--image-sizes", "64,96"], ["--image-sizes", "2"]),
        (["--image-sizes", "60"], ["60", "tubelet"]),
        (["--fps", "0"], ["--fps", "'0'"]),
        (["nowhere.mp4"], ["nowhere.mp4"]),
    ],
)
def test_errors_in_the_command_are_one_line_before_any_work(tmp_path, small_set, visualize, arguments, facts):
    status, _, error = visualize(*arguments, small_set / "videos" / "1.mp4", "--output", tmp_path / "out")
    assert status == 2 and "Traceback" not in error and not (tmp_path / "out").exists()
    assert all(fact in error.splitlines()[-1] for fact in facts)


def test_an_invalid_start_is_an_error_that_names_the_file(tmp_path, small_set, visualize):
    video = small_set / "videos" / "1.mp4"
    status, _, error = visualize(video, "--start", "60", "--output", tmp_path / "out")
    assert status == 1 and error.startswith(f"error: {video}: start: found 60")


def test_a_model_without_cross_attention_is_an_error(tmp_path, small_set, visualize):
    run = save_random_model(tmp_path / "vit", "vivit_pico8x2")
    status, _, error = visualize(small_set / "videos" / "1.mp4", "--output", tmp_path / "out", run=run)
    assert status == 2 and error.startswith(f"error: {run}: model: found a ViT") and error.count("\n") == 1
