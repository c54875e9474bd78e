"""tools/visualize_attention.py, by its command line."""

import shutil
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT

import lookupvivit
from lookupvivit.weights.files import save_model

PREPROCESSING = {"frames": 4, "stride": 1, "short_side": 64, "crop": 64, "range": [-1, 1]}
SMALL = {"width": 16, "depth": 2, "num_heads": 2}


def saved(folder, name, preprocessing, **overrides):
    torch.manual_seed(0)
    model = lookupvivit.create_model(name, 3, **overrides)
    description = {"name": name, "num_classes": 3, "overrides": overrides, "preprocessing": preprocessing}
    save_model(folder, model.state_dict(), {**description, "class_names": ["left", "à droite", "still"]})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "video"
    return saved(folder, "lookupvivit_pico8x2_4x4x4", PREPROCESSING, input_size=[4, 64, 64], **SMALL)


@pytest.fixture
def visualize(shell, model):
    def run(*arguments, expect=0, model=model):
        tool = [sys.executable, str(ROOT / "tools" / "visualize_attention.py"), "--model", str(model)]
        return shell([*tool, *map(str, arguments)], expect=expect)

    return run


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder), size_guidance={"images": 0})
    board.Reload()
    return {tag: len(board.Images(tag)) for tag in board.Tags()["images"]}


def test_videos_pictures_and_a_broken_file(tmp_path, small_set, visualize):
    clips, out = tmp_path / "clips", tmp_path / "out"
    (clips / "sub").mkdir(parents=True)
    shutil.copy(small_set / "videos" / "1.mp4", clips / "one.mp4")
    shutil.copy(small_set / "videos" / "2.mp4", clips / "sub" / "日本 $2.mp4")
    Image.fromarray(np.zeros((90, 70, 3), np.uint8)).save(clips / "one.png")
    (clips / "broken.mp4").write_bytes(b"no video")
    told = visualize(clips, "--output", out, "--blocks", "all", "--gif", "--tensorboard", tmp_path / "tb", expect=1)
    (error,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "broken.mp4: cannot be decoded" in error and "1 of 4 could not be read" in told
    assert "Traceback" not in told and "Warning" not in told
    # Two of one stem keep their suffixes.
    names = ["one.mp4", "one.png", "sub/日本 $2"]
    made = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert made == {f"{name}_attention.{kind}" for name in names for kind in ("png", "mp4", "gif")}
    with av.open(str(out / "sub" / "日本 $2_attention.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 4 and film.streams.video[0].average_rate == 1
    assert Image.open(out / "sub" / "日本 $2_attention.gif").n_frames == 4
    shown = {
        f"attention{film}/{name}": count
        for film, count in (("", 1), ("_film", 4))
        for name in ("one.mp4", "one.png", "sub/日本 $2.mp4")
    }
    assert events(tmp_path / "tb") == shown


@pytest.mark.cold
@pytest.mark.slow
def test_sizes_tokens_heads_and_start(tmp_path, small_set, visualize):
    video = tmp_path / "1.mp4"  # in the output folder: it must survive
    shutil.copy(small_set / "videos" / "1.mp4", video)
    options = ("--sizes", "2,2x3x3", "--tokens", "0,1,1", "1,0,1", "--heads", "1", "--start", "0.08", "--fps", "12.5")
    visualize(video, "--output", tmp_path, *options)
    assert video.read_bytes() == (small_set / "videos" / "1.mp4").read_bytes()
    with av.open(str(tmp_path / "1_attention.mp4")) as film:
        assert film.streams.video[0].average_rate == 12.5
    # One clip's frames, and a row for each of two tokens at each of two sizes.
    assert Image.open(tmp_path / "1_attention.png").height > 5 * 176


@pytest.mark.slow
def test_an_image_model_makes_one_sheet_of_all_sizes(tmp_path, visualize):
    still = {**PREPROCESSING, "frames": 1, "short_side": 32, "crop": 32}
    sizes = {"input_size": [1, 32, 32], "tubelet": [1, 8, 8]}
    model = saved(tmp_path / "image", "lookupvit_ti16_5x5", still, **sizes, **SMALL)
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    told = visualize(tmp_path / "a.png", "--output", tmp_path / "out", "--sizes", "3,5,7", model=model)
    assert "left (33" in told or "droite (33" in told or "still (33" in told
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a_attention.png"]
    assert Image.open(tmp_path / "out" / "a_attention.png").width > 4 * 256
    both = ("--sizes", "3,5", "--image-sizes", "32,48")
    visualize(tmp_path / "a.png", "--output", tmp_path / "both", *both, model=model)
    assert Image.open(tmp_path / "both" / "a_attention.png").width > 5 * 256  # the picture, two sizes of two sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--blocks", "0,2"], "blocks: found 2, must be from 0 to 1"),
        (["--heads", "2"], "heads: found 2, must be from 0 to 1"),
        (["--tokens", "0,4,0", "--heads", "1"], "tokens: found 0,4,0, must be t,h,w from 0,0,0 to 3,3,3"),
        (["--tokens", "0,2,0", "--sizes", "3,2"], "tokens: found 0,2,0, must be t,h,w from 0,0,0 to 3,1,1"),
        (["--blocks", "first"], "found 'first', must be numbers"),
        (["--sizes", "3x3"], "found '3x3', must be sizes"),
        (["--image-sizes", "64,96"], "--image-sizes: found 2, must be one for a model of videos"),
        (["--image-sizes", "60"], "cannot be cut into tubelets"),
        (["--fps", "0"], "found '0', must be frames a second"),
        (["nowhere.mp4"], "nowhere.mp4: no such file"),
    ],
)
def test_mistakes_are_one_line_before_any_work(tmp_path, small_set, visualize, arguments, message):
    told = visualize(*arguments, small_set / "videos" / "1.mp4", "--output", tmp_path / "out", expect=2)
    assert message in told.splitlines()[-1] and "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_a_model_without_cross_attention(tmp_path, small_set, visualize):
    model = saved(tmp_path / "vit", "vivit_pico8x2", PREPROCESSING, input_size=[4, 64, 64], **SMALL)
    told = visualize(small_set / "videos" / "1.mp4", "--output", tmp_path / "out", model=model, expect=2)
    (line,) = told.splitlines()
    assert "vit: model: found a ViT, which has no cross-attention; must be a lookupvit" in line
