"""The shipped camera motion model."""

from __future__ import annotations

import pytest
import torch
from support.in_process import run_tool
from support.saved_models import save_random_model

import lookupvivit
from lookupvivit.camera_motion.classes import CLASS_NAMES
from lookupvivit.camera_motion.evaluation import evaluate
from lookupvivit.camera_motion.second_renderer import CLASSES, encode, encoding_of, render
from lookupvivit.camera_motion.video_sets import LabelledVideo, VideoSet
from lookupvivit.weights.files import WeightsError, read_tensors, weights_file
from lookupvivit.weights.importing import import_weights

NAME = "camera_motion"
MAX_BYTES = 12 * 2**20


def test_it_is_small_and_loads_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = lookupvivit.load_model(NAME)
    assert lookupvivit.class_names_of(model) == CLASS_NAMES
    assert not model.training
    file = weights_file(NAME)
    assert file.stat().st_size <= MAX_BYTES
    assert {tensor.dtype for tensor in read_tensors(file).values()} == {torch.float16}
    # It also initialises a run for other classes.
    finetuned = lookupvivit.create_model(
        "lookupvivit_pico8x2_4x4x4", 3, input_size=model.input_size, tubelet=model.tubelet
    )
    assert set(import_weights(finetuned, NAME).initialised) == {
        f"{stream}_head.{parameter}" for stream in ("compressed", "lookup") for parameter in ("weight", "bias")
    }


def test_a_folder_of_its_name_takes_precedence_and_unknown_names_are_one_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_random_model(tmp_path / NAME)
    assert lookupvivit.load_model(NAME).description != lookupvivit.load_model(weights_file_of_package()).description
    with pytest.raises(WeightsError, match=r"^camera_motoin: not found, expected a run directory or a model"):
        lookupvivit.load_model("camera_motoin")


def weights_file_of_package():
    from lookupvivit.weights.shipped import SHIPPED_MODELS

    return SHIPPED_MODELS[NAME]


@pytest.mark.slow
def test_it_recognises_the_camera_motion_of_another_renderer(tmp_path):
    videos = []
    for index in range(20):  # two of each class
        video, encoding = render(index, seed=7), encoding_of(index, seed=7)
        file = tmp_path / f"{index}{encoding.suffix}"
        encode(file, video, encoding)
        videos.append(LabelledVideo(str(file), CLASSES.index(video.class_name)))
    model = lookupvivit.load_model(NAME)
    (result,) = evaluate(model, NAME, VideoSet("set", "set", tuple(videos)), [None], (1, 1), torch.device("cpu"))
    assert result.matrix.trace() >= 12  # chance is 2; its model card has the accuracy


def test_predict_uses_it_without_a_run(tmp_path, small_set, monkeypatch, capsys):
    video = small_set / "videos" / "1.mp4"
    status, output, errors = run_tool(monkeypatch, capsys, "predict.py", video, "--views", "1x1")
    assert not status, errors
    first, *others = output.splitlines()
    assert first == "no --run: camera motion, recognised by the shipped model camera_motion"
    assert any(name in output for name in CLASS_NAMES) and others
