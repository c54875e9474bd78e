"""Logits and features of image folders, compared with one image at a time."""

import numpy as np
import pytest
import torch
from support.image_models import logits_one_by_one, small_model, write_images

import lookupvivit
from data_pipelines.datasets.class_folders import read_class_folders
from data_pipelines.io.errors import DataError
from lookupvivit.evaluation.image_outputs import classifier_inputs, image_outputs

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")


@pytest.mark.parametrize(("name", "num_classifiers"), [("lookupvit_ti16_3x3", 2), ("vit_ti16", 1)])
def test_outputs_equal_those_of_single_images(tmp_path, name, num_classifiers):
    run = small_model(tmp_path / "run", CLASSES, name)
    manifest = read_class_folders(write_images(tmp_path / "images", CLASSES, 3))
    model = lookupvivit.load_model(run)
    logits, features = image_outputs(model, manifest, 4, CPU, 0, "test")
    np.testing.assert_allclose(logits, logits_one_by_one(run, manifest.paths), rtol=1e-4, atol=1e-5)

    # The features are the inputs of the classifiers, whose logits are averaged.
    classifiers = [module for part, module in model.named_children() if part.endswith("head")]
    parts = torch.from_numpy(features).split(16, dim=1)
    assert len(parts) == len(classifiers) == num_classifiers
    averaged = torch.stack([classifier(part) for classifier, part in zip(classifiers, parts, strict=True)]).mean(0)
    np.testing.assert_allclose(averaged.detach().numpy(), logits, rtol=1e-4, atol=1e-5)

    cropped = image_outputs(model, manifest, 4, CPU, 0, "test", cropped=True).logits
    assert np.abs(cropped - logits).max() > 1e-3


def test_classifier_inputs_are_recorded_only_within_the_block(tmp_path):
    model = lookupvivit.load_model(small_model(tmp_path / "run", CLASSES))
    with classifier_inputs(model) as recorded:
        pass
    model(torch.zeros(1, 3, 16, 16))
    assert not recorded


def test_a_corrupt_image_raises_and_is_named(tmp_path):
    run, folder = small_model(tmp_path / "run", CLASSES), write_images(tmp_path / "images", CLASSES, 2)
    (folder / "b" / "1.JPEG").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"b/1\.JPEG"):
        image_outputs(lookupvivit.load_model(run), read_class_folders(folder), 4, CPU, 0, "test")
