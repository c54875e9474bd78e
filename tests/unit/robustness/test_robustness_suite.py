"""Whole sets through a small model, against one picture at a time and other people's arithmetic."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from support.image_models import small_model, write_images

import lookupvivit
from data_pipelines.datasets.class_folders import read_class_folders
from data_pipelines.datasets.class_names import class_names
from data_pipelines.io.errors import DataError
from lookupvivit.evaluation.image_outputs import classifier_inputs, image_outputs
from lookupvivit.robustness.metrics import ALEXNET_ERRORS
from lookupvivit.robustness.suite import Suite

CPU = torch.device("cpu")


def suite(run, folder):
    return Suite(lookupvivit.load_model(run), run, folder, batch_size=64, device=CPU, workers=0)


def untouched(file):
    """A picture of the model's size as it is."""
    pixels = np.asarray(Image.open(file).convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[:, None].float() / 127.5 - 1


@torch.no_grad()
def one_by_one(run, files, cropped=False):
    model = lookupvivit.load_model(run)
    read = untouched if cropped else model.preprocess
    return torch.cat([model(read(file)[None]).logits for file in files]).numpy()


def listed(folder, classes):
    return [file for name in classes for file in sorted((folder / name).iterdir())]


@pytest.fixture(scope="module")
def imagenet_run(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("runs") / "imagenet", class_names("imagenet"))


@pytest.fixture(scope="module")
def two_class_run(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("runs") / "two", ("n01", "n02"))


def corrupted(folder, skip=()):
    for number, corruption in enumerate(ALEXNET_ERRORS):
        for severity in range(1, 6):
            if (corruption, severity) not in skip:
                place = folder / corruption / str(severity)
                write_images(place, ("n01", "n02"), 3, seed=10 * number + severity, size=(16, 16))
    return folder


@pytest.mark.parametrize("name", ["lookupvit_ti16_3x3", "vit_ti16"])
def test_outputs_are_those_of_single_pictures(tmp_path, name):
    run, folder = (
        small_model(tmp_path / "run", ("a", "b", "c"), name),
        write_images(tmp_path / "set", ("a", "b", "c"), 3),
    )
    model, manifest = lookupvivit.load_model(run), read_class_folders(folder)
    logits, features = image_outputs(model, manifest, 4, CPU, 0, "test")
    np.testing.assert_allclose(logits, one_by_one(run, manifest.paths), rtol=1e-4, atol=1e-5)
    heads = [module for part, module in model.named_children() if part.endswith("head")]
    parts = torch.from_numpy(features).split(16, dim=1)
    assert len(parts) == len(heads) == (2 if name.startswith("lookup") else 1)
    again = torch.stack([head(part) for head, part in zip(heads, parts, strict=True)]).mean(0)
    np.testing.assert_allclose(again.detach().numpy(), logits, rtol=1e-4, atol=1e-5)
    with classifier_inputs(model) as seen:
        pass
    model(model.preprocess(manifest.paths[0])[None])
    assert not seen  # hooks are gone
    cropped = image_outputs(model, manifest, 4, CPU, 0, "test", cropped=True).logits
    assert np.abs(cropped - logits).max() > 1e-3


def test_a_broken_picture_stops_the_count(tmp_path, two_class_run):
    folder = write_images(tmp_path / "set", ("n01", "n02"), 2)
    (folder / "n02" / "1.JPEG").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"n02/1\.JPEG: cannot be decoded.*must be replaced by a whole one"):
        image_outputs(lookupvivit.load_model(two_class_run), read_class_folders(folder), 4, CPU, 0, "test")


def test_imagenet_a_r_and_o(tmp_path, imagenet_run):
    imagenet, saved = class_names("imagenet"), tmp_path / "saved"
    tested = suite(imagenet_run, saved)
    for kind in ("a", "r"):
        subset = class_names(f"imagenet_{kind}")
        folder = write_images(tmp_path / kind, subset, seed=ord(kind))
        columns = [imagenet.index(name) for name in subset]
        answers = one_by_one(imagenet_run, listed(folder, subset))[:, columns].argmax(axis=1)
        report = tested.subset(f"imagenet_{kind}", folder)
        assert report == {"accuracy": (answers == np.arange(200)).mean(), "pictures": 200}
        with np.load(saved / f"imagenet_{kind}.npz") as file:  # of every picture
            assert file["predicted"].tolist() == [columns[answer] for answer in answers]
            assert file["labels"].tolist() == columns and file["names"][0] == f"{subset[0]}/0.JPEG"
    subset = class_names("imagenet_o")
    columns = [imagenet.index(name) for name in subset]
    outliers, validation = (
        write_images(tmp_path / "o", subset, 1, seed=1),
        write_images(tmp_path / "val", subset, 2, seed=2),
    )
    write_images(validation, ("n01440764",), 5)  # a class that is not among the 200
    logits = one_by_one(imagenet_run, [*listed(outliers, subset), *listed(validation, subset)])[:, columns]
    scores = -torch.from_numpy(logits).double().softmax(1).max(1).values.numpy()
    report = tested.outliers(outliers, validation)
    assert report["aupr"] == pytest.approx(average_precision_score(np.arange(600) < 200, scores), abs=1e-5)
    assert (report["pictures"], report["inliers"]) == (200, 400)

    shutil.rmtree(outliers / subset[0])
    with pytest.raises(DataError, match=rf"no folder '{subset[0]}' \(1 missing\), and 199 class folders"):
        tested.outliers(outliers, validation)
    other = suite(small_model(tmp_path / "other", ("cat", "dog")), saved)
    with pytest.raises(DataError, match="imagenet_a: the model must have its WordNet ids as class names"):
        other.subset("imagenet_a", tmp_path / "a")


def test_imagenet_c_and_the_feature_deviation(tmp_path, two_class_run):
    classes = ("n01", "n02")
    clean = write_images(tmp_path / "val", classes, 3, seed=1, size=(20, 20))
    folder = corrupted(tmp_path / "c")
    tested = suite(two_class_run, tmp_path / "saved")
    report = tested.corruptions(folder, clean)
    labels = np.repeat([0, 1], 3)
    expected = {
        name: [
            (one_by_one(two_class_run, listed(folder / name / str(level), classes), True).argmax(1) == labels).mean()
            for level in range(1, 6)
        ]
        for name in ALEXNET_ERRORS
    }
    assert report["accuracies"] == expected and report["pictures"] == 6
    errors = [1 - np.mean(row) for row in expected.values()]
    assert report["mce"] == pytest.approx(np.mean(np.divide(errors, list(ALEXNET_ERRORS.values()))))
    assert report["by_severity"] == pytest.approx(np.mean(list(expected.values()), axis=0))

    model = lookupvivit.load_model(two_class_run)
    with torch.no_grad(), classifier_inputs(model) as seen:
        model(model.preprocess(clean / "n02" / "1.JPEG")[None])
        model(untouched(folder / "fog" / "4" / "n02" / "1.JPEG")[None])
    first, second = (torch.cat(parts, dim=1)[0].double() for parts in (seen[:2], seen[2:]))
    deviation = ((first - second).norm() / first.norm()).item()
    deviations = tested.deviations()
    assert deviations.shape == (15, 5, 6)
    assert deviations[list(ALEXNET_ERRORS).index("fog"), 3, 4] == pytest.approx(deviation, rel=1e-4)
    assert np.array(list(report["deviations"].values())) == pytest.approx(deviations.mean(axis=2), rel=1e-6)


def test_a_second_run_goes_on_and_other_weights_start_afresh(tmp_path, two_class_run, monkeypatch):
    folder, saved = corrupted(tmp_path / "c"), tmp_path / "saved"
    whole = suite(two_class_run, saved).corruptions(folder)
    (saved / "imagenet_c" / "snow_2.npz").unlink()
    (saved / "imagenet_c" / "fog_5.npz").write_bytes(b"torn")
    done = []
    real = Suite.outputs
    monkeypatch.setattr(Suite, "outputs", lambda self, m, name, c=False: done.append(name) or real(self, m, name, c))
    assert suite(two_class_run, saved).corruptions(folder) == whole
    assert sorted(done) == ["imagenet_c/fog_5", "imagenet_c/snow_2"]
    del done[:]
    write_images(folder / "frost" / "1", ("n02",), 4, size=(16, 16))  # one picture more than elsewhere
    with pytest.raises(DataError, match=r"frost/1: found 7 pictures, must be the same 6 as in the first"):
        suite(two_class_run, saved).corruptions(folder)
    (folder / "frost" / "1" / "n02" / "3.JPEG").unlink()
    suite(small_model(tmp_path / "other", ("n01", "n02"), seed=1), saved).corruptions(folder)
    assert len(done) == 75
    assert not [path for path in Path(saved).rglob(".*")]


def test_what_is_absent_is_no_part_of_a_mean(tmp_path, two_class_run):
    folder = corrupted(tmp_path / "c", skip={("fog", 4), *(("snow", level) for level in range(1, 6))})
    report = suite(two_class_run, tmp_path / "saved").corruptions(folder)
    assert report["accuracies"]["snow"] == [None] * 5
    assert [share is None for share in report["accuracies"]["fog"]] == [False, False, False, True, False]
    assert not {"mce", "accuracy", "by_severity"} & set(report)
    clean = write_images(tmp_path / "val", ("n01", "n02"), 2)
    with pytest.raises(DataError, match=r"val: lacks n01/2\.JPEG \(2 missing\), which .*gaussian_noise/1 holds"):
        suite(two_class_run, tmp_path / "fresh").corruptions(folder, clean)
