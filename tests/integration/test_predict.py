"""tools/predict.py, by its command line."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT

import lookupvivit
from lookupvivit.weights.files import save_model

DATA = ROOT.parent / "shared" / "data"
NAME, SMALL = "lookupvivit_pico8x2_4x4x4", {"width": 16, "depth": 1, "num_heads": 2}
PREPROCESSING = {"frames": 4, "stride": 1, "short_side": 64, "crop": 64, "range": [-1, 1]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "run"
    torch.manual_seed(0)
    model = lookupvivit.create_model(NAME, 3, input_size=[4, 64, 64], **SMALL)
    for head in (model.compressed_head, model.lookup_head):
        torch.nn.init.normal_(head.weight)
    description = {"name": NAME, "num_classes": 3, "overrides": {**SMALL, "input_size": [4, 64, 64]}}
    names = ["left", "à droite", "still"]
    save_model(folder, model.state_dict(), {**description, "class_names": names, "preprocessing": PREPROCESSING})
    return folder


@pytest.fixture
def predict(shell, model):
    def run(*arguments, expect=0, model=model):
        return shell(
            [sys.executable, str(ROOT / "tools" / "predict.py"), "--model", str(model), *map(str, arguments)],
            expect=expect,
        )

    return run


@pytest.mark.cold
def test_a_folder_of_anything(tmp_path, small_set, predict):
    """Videos of 8 frames, a picture and a broken file: what can be read is told, the exit status tells of the rest."""
    clips = tmp_path / "clips"
    (clips / "sub").mkdir(parents=True)
    shutil.copy(small_set / "videos" / "1.mp4", clips / "one.mp4")
    shutil.copy(small_set / "videos" / "2.mp4", clips / "sub" / "日本 #2.mp4")
    Image.fromarray(np.zeros((90, 70, 3), np.uint8)).save(clips / "a.png")
    (clips / "broken.mp4").write_bytes(b"no video")
    (clips / "notes.txt").touch()
    told = predict(
        clips,
        "--window",
        "0.1",
        "--top",
        2,
        "--output",
        tmp_path / "out",
        "--json",
        tmp_path / "p.json",
        "--compressed-size",
        "1,2,2",
        expect=1,
    )
    assert "1 files that are no videos or pictures ignored" in told and "1 of 4 could not be read" in told
    (error,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert "broken.mp4: cannot be decoded" in error and "Traceback" not in told
    pictures = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")}
    assert pictures == {"one.mp4.png", "a.png.png", "sub/日本 #2.mp4.png"}

    videos = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["videos"]
    by_name = {Path(video["path"]).name: video for video in videos}
    assert by_name["broken.mp4"]["error"] in error
    assert "timeline" not in by_name["a.png"]
    moments = by_name["one.mp4"]["timeline"]
    assert moments[0]["start"] == 0 and len(moments) > 2 and all(len(moment["top"]) == 2 for moment in moments)
    best, timed = by_name["a.png"]["top"][0], by_name["one.mp4"]["top"][0]
    assert f"{100 * best['probability']:.1f} %  {best['class']}" in told
    means = {entry["class"]: entry["probability"] for entry in by_name["one.mp4"]["top_over_time"]}
    assert all(0 <= mean <= 1 for mean in means.values()) and f"  {100 * timed['probability']:5.1f} %  " in told


def test_a_users_mistakes_end_in_one_line(tmp_path, small_set, model, predict):
    video = small_set / "videos" / "1.mp4"
    (tmp_path / "empty").mkdir()
    for words, *arguments in (
        ("nowhere.mp4: no such file or folder", video, "nowhere.mp4"),
        ("empty: found no video or image", tmp_path / "empty"),
        ("'4x2', must be clips x crops such as 4x3", video, "--views", "4x2"),
        ("'0', must be a positive number of seconds", video, "--window", "0"),
        ("'4,4', must be three positive numbers t,h,w", video, "--compressed-size", "4,4"),
        ("'gpu'", video, "--device", "gpu"),
    ):
        told = predict(*arguments, expect=2)
        assert words in told and "Traceback" not in told
    told = predict(video, expect=2, model=ROOT / "README.md")
    assert "README.md: not a .safetensors file; expected a run directory or a model.safetensors file" in told
    description = json.loads((model / "model.json").read_text(encoding="utf-8"))
    shutil.copytree(model, tmp_path / "untold")
    for key, words in {"crop": "preprocessing.crop: missing", None: "model.json of its weights has no pre"}.items():
        wrong = {k: v for k, v in PREPROCESSING.items() if k != key}
        changed = {**description, "preprocessing": wrong} if key else {k: description[k] for k in list(description)[:4]}
        (tmp_path / "untold" / "model.json").write_text(json.dumps(changed))
        told = predict(video, expect=2, model=tmp_path / "untold")
        assert told.startswith(f"error: {tmp_path / 'untold'}: ") and words in told and told.count("\n") == 1


@pytest.mark.skipif(not (DATA / "awkward").is_dir(), reason="needs the sample files of ../shared/data")
def test_awkward_files_are_told_or_named(tmp_path, predict):
    files = sorted(file.name for file in (DATA / "awkward").iterdir())
    told = predict(DATA / "awkward", "--output", tmp_path, "--views", "1x1", expect=1)
    named = [name for name in files if f"error: {DATA / 'awkward' / name}: " in told]
    assert {f"{name}.png" for name in files if name not in named} == {file.name for file in tmp_path.iterdir()}
    assert "empty.mp4" in named and "one_frame.mp4" not in named and "Traceback" not in told
