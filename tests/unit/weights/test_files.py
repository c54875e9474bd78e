"""Saved models load unchanged, and errors name what does not fit."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from support.saved_models import VIDEO_PREPROCESSING, save_random_model

import lookupvivit
from data_pipelines.io.errors import DataError
from lookupvivit.weights.files import WeightsError, described_model, load_model, load_weights, save_model
from lookupvivit.weights.metadata import preprocess_of

NAME, TINY = "lookupvivit_pico8x2_4x4x4", {"width": 32, "depth": 1, "num_heads": 2, "input_size": (2, 16, 16)}


def saved(folder, classes=5, extra=None, **overrides):
    model = lookupvivit.create_model(NAME, classes, **{**TINY, **overrides})
    description = {"name": NAME, "num_classes": classes, "overrides": {**TINY, **overrides}, **(extra or {})}
    save_model(folder, model.state_dict(), description)
    return model.eval()


def test_round_trip(tmp_path):
    model, video = saved(tmp_path), torch.randn(1, 3, 2, 16, 16)
    for path in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        assert torch.equal(load_model(path)(video).logits, model(video).logits)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_another_number_of_classes_reports_new_classifiers(tmp_path):
    source, target = saved(tmp_path, classes=5), lookupvivit.create_model(NAME, 7, **TINY)
    report = load_weights(target, tmp_path)
    assert sorted(report.initialised) == [f"{s}_head.{p}" for s in ("compressed", "lookup") for p in ("bias", "weight")]
    assert len(report.loaded) + 4 == len(target.state_dict())
    assert torch.equal(target.positions, source.positions)
    with pytest.raises(WeightsError, match="compressed_head"):
        load_weights(target, tmp_path, heads_may_differ=False)


def test_errors_name_what_does_not_fit(tmp_path):
    saved(tmp_path)
    misfits = (({"depth": 2}, r"missing tensor blocks\.1"), ({"width": 64}, r"found shape \(.*32.*expected"))
    for overrides, message in misfits:
        with pytest.raises(WeightsError, match=message):
            load_weights(lookupvivit.create_model(NAME, 5, **{**TINY, **overrides}), tmp_path)
    saved(tmp_path / "deep", depth=2)
    with pytest.raises(WeightsError, match="unexpected tensor"):
        load_weights(lookupvivit.create_model(NAME, 5, **TINY), tmp_path / "deep")
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_model(tmp_path)
    with pytest.raises(WeightsError, match="not found"):
        load_model(tmp_path / "nowhere")
    for name in ("README.md", "empty"):
        path = tmp_path / name
        path.touch() if path.suffix else path.mkdir()
        with pytest.raises(WeightsError, match=f"^{re.escape(str(path))}: .* expected a run directory or a model"):
            lookupvivit.load_model(path)


def test_weights_of_other_types_than_floating_point_are_refused(tmp_path):
    state = saved(tmp_path).state_dict()
    save_file({**state, "positions": state["positions"].long()}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"tensor positions: found torch\.int64, expected floating point numbers"):
        load_model(tmp_path)


def test_invalid_class_names_are_refused(tmp_path):
    for names in (["a"], "abcde", [1, 2, 3, 4, 5], None):
        saved(tmp_path, extra={"class_names": names})
        with pytest.raises(WeightsError, match=r"model\.json: class_names: expected a list of 5"):
            lookupvivit.load_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("width", 10**9, "overrides.width: found 1000000000"),
        ("depth", 10**5, "overrides.depth: found 100000"),
        ("width", "9" * 5000, "overrides.width: found inf"),
        ("input_size", [4, 10**7, 64], "overrides.input_size: found 10000000"),
        ("input_size", "4x10000000x64", "overrides.input_size: found 10000000"),
        ("width", 2**16, "tensor .*: found shape"),
    ],
)
def test_a_description_that_asks_for_more_than_the_weights_allocates_nothing(tmp_path, monkeypatch, key, value, found):
    file = save_random_model(tmp_path) / "model.json"
    description = json.loads(file.read_text())
    description["overrides"][key] = value
    file.write_text(json.dumps(description))
    devices = []

    def build(description):
        devices.append(torch.get_default_device().type)
        return described_model(description)

    monkeypatch.setattr("lookupvivit.weights.files.described_model", build)
    with pytest.raises(WeightsError, match=found):
        load_model(tmp_path)
    assert set(devices) <= {"meta"}


def test_preprocessing_that_fills_the_memory_is_refused(tmp_path):
    save_random_model(tmp_path, preprocessing={**VIDEO_PREPROCESSING, "frames": 4})
    file = tmp_path / "model.json"
    description = json.loads(file.read_text())
    description["preprocessing"]["frames"] = 10**9
    file.write_text(json.dumps(description))
    with pytest.raises(DataError, match=r"preprocessing\.crop: found clips of 1000000000 x 64 x 64"):
        preprocess_of(load_model(tmp_path))
