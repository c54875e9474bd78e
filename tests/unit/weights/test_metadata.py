"""Preprocessing and class names of loaded models."""

import copy

import numpy as np
import pytest
import torch

import lookupvivit
from lookupvivit.weights.files import WeightsError, save_model

NAME, SMALL = "lookupvivit_pico8x2_4x4x4", {"width": 32, "depth": 1, "num_heads": 2, "input_size": (2, 16, 16)}
METADATA = {
    "class_names": list("abcde"),
    "preprocessing": {"frames": 2, "stride": 3, "short_side": 20, "crop": 16},
}
ACCESSORS = {"class_names": lookupvivit.class_names_of, "preprocessing": lookupvivit.preprocess_of}


def saved_and_loaded(folder, **metadata):
    model = lookupvivit.create_model(NAME, 5, **SMALL)
    save_model(folder, model.state_dict(), {"name": NAME, "num_classes": 5, "overrides": SMALL, **metadata})
    return lookupvivit.load_model(folder)


def test_preprocessing_of_a_loaded_model_feeds_it(tmp_path):
    model = saved_and_loaded(tmp_path, **METADATA)
    preprocess = lookupvivit.preprocess_of(model)
    video = np.random.default_rng(0).integers(0, 255, (9, 30, 40, 3), dtype=np.uint8)
    clip = preprocess(video)
    assert clip.shape == (3, 2, 16, 16) and model(clip[None]).logits.shape == (1, 5)
    assert torch.equal(clip, preprocess(video[1:7]))  # the clip in the middle: frames 1 and 4
    assert lookupvivit.preprocess_of(copy.deepcopy(model)) == preprocess


def test_class_names_of_a_loaded_model(tmp_path):
    model = saved_and_loaded(tmp_path, **METADATA)
    assert lookupvivit.class_names_of(model) == tuple("abcde")
    model.reset_classifier(3)
    with pytest.raises(WeightsError, match=r"class_names: .* 5 classes was replaced by one of 3"):
        lookupvivit.class_names_of(model)


@pytest.mark.parametrize("key", ACCESSORS)
def test_unknown_metadata_raises(key, tmp_path):
    with pytest.raises(WeightsError, match=f"{key}: .* not loaded from trained weights"):
        ACCESSORS[key](lookupvivit.create_model(NAME, 5, **SMALL))
    with pytest.raises(WeightsError, match=rf"{key}: .* model\.json"):
        ACCESSORS[key](saved_and_loaded(tmp_path))


def test_options_of_earlier_releases_load_under_their_current_names(tmp_path):
    model = lookupvivit.create_model(NAME, 5, **SMALL, classifiers="compressed", classifier_bias=-2.0)
    overrides = {**SMALL, "heads": "compressed", "head_bias": -2.0}
    save_model(tmp_path, model.state_dict(), {"name": NAME, "num_classes": 5, "overrides": overrides})
    loaded = lookupvivit.load_model(tmp_path)
    assert loaded.classifiers == "compressed" and loaded.classifier_bias == -2.0
    assert {"heads", "head_bias"}.isdisjoint(loaded.description["overrides"])
