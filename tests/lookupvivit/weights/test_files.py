"""Weights that go out come back the same, and what does not fit is named."""

import pytest
import torch

import lookupvivit
from lookupvivit.weights.files import WeightsError, load_model, load_weights, save_model

NAME, TINY = "lookupvivit_pico8x2_4x4x4", {"width": 32, "depth": 1, "num_heads": 2, "input_size": (2, 16, 16)}


def saved(folder, classes=5, **overrides):
    model = lookupvivit.create_model(NAME, classes, **{**TINY, **overrides})
    save_model(folder, model.state_dict(), {"name": NAME, "num_classes": classes, "overrides": {**TINY, **overrides}})
    return model.eval()


def test_round_trip(tmp_path):
    model, video = saved(tmp_path), torch.randn(1, 3, 2, 16, 16)
    for path in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        assert torch.equal(load_model(path)(video).logits, model(video).logits)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_another_number_of_classes_keeps_the_body_and_reports_the_heads(tmp_path):
    source, target = saved(tmp_path, classes=5), lookupvivit.create_model(NAME, 7, **TINY)
    report = load_weights(target, tmp_path)
    assert sorted(report.initialised) == [f"{s}_head.{p}" for s in ("compressed", "lookup") for p in ("bias", "weight")]
    assert len(report.loaded) + 4 == len(target.state_dict())
    assert torch.equal(target.positions, source.positions)
    with pytest.raises(WeightsError, match="compressed_head"):
        load_weights(target, tmp_path, heads_may_differ=False)


def test_what_does_not_fit_is_named(tmp_path):
    saved(tmp_path)
    misfits = (({"depth": 2}, r"has no tensor blocks\.1"), ({"width": 64}, r"is \(.*32.*the model wants"))
    for overrides, words in misfits:
        with pytest.raises(WeightsError, match=words):
            load_weights(lookupvivit.create_model(NAME, 5, **{**TINY, **overrides}), tmp_path)
    saved(tmp_path / "deep", depth=2)
    with pytest.raises(WeightsError, match="unexpected tensor"):
        load_weights(lookupvivit.create_model(NAME, 5, **TINY), tmp_path / "deep")
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_model(tmp_path)
    with pytest.raises(WeightsError, match="not found"):
        load_model(tmp_path / "nowhere")
