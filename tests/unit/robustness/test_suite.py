"""The robustness datasets with a small model, compared with one image at a time and with scikit-learn."""

import os
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from support.image_models import logits_one_by_one, read_unresized, small_model, write_images

import lookupvivit
from data_pipelines.datasets.class_names import class_names
from data_pipelines.io.errors import DataError
from lookupvivit.evaluation.image_outputs import classifier_inputs
from lookupvivit.robustness.metrics import ALEXNET_ERRORS
from lookupvivit.robustness.suite import RobustnessSuite

IMAGENET = class_names("imagenet")
CLASSES = ("n01", "n02")
NUM_IMAGES = 3  # per class of ImageNet-C


def create_suite(run, folder):
    return RobustnessSuite(
        lookupvivit.load_model(run), run, folder, batch_size=64, device=torch.device("cpu"), workers=0
    )


def files_of(folder, classes):
    return [file for name in classes for file in sorted((folder / name).iterdir())]


@pytest.fixture(scope="module")
def imagenet_run(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("runs") / "imagenet", IMAGENET)


@pytest.fixture(scope="module")
def two_class_run(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("runs") / "two", CLASSES)


@pytest.fixture(scope="module")
def complete_imagenet_c(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet_c")
    for number, corruption in enumerate(ALEXNET_ERRORS):
        for severity in range(1, 6):
            images = folder / corruption / str(severity)
            write_images(images, CLASSES, NUM_IMAGES, seed=10 * number + severity, size=(16, 16))
    return folder


@pytest.fixture
def imagenet_c(complete_imagenet_c, tmp_path):
    """A copy that tests may change."""
    return shutil.copytree(complete_imagenet_c, tmp_path / "imagenet_c")


@pytest.mark.parametrize("kind", ["a", "r"])
def test_imagenet_a_and_r_equal_single_images(tmp_path, imagenet_run, kind):
    subset = class_names(f"imagenet_{kind}")
    columns = [IMAGENET.index(name) for name in subset]
    folder = write_images(tmp_path / "images", subset, seed=ord(kind))
    predicted = logits_one_by_one(imagenet_run, files_of(folder, subset))[:, columns].argmax(axis=1)
    report = create_suite(imagenet_run, tmp_path / "saved").evaluate_subset(f"imagenet_{kind}", folder)
    assert report == {"accuracy": (predicted == np.arange(200)).mean(), "pictures": 200}
    with np.load(tmp_path / "saved" / f"imagenet_{kind}.npz") as file:
        assert file["predicted"].tolist() == [columns[index] for index in predicted]
        assert file["labels"].tolist() == columns and file["names"][0] == f"{subset[0]}/0.JPEG"


def test_imagenet_o_equals_scikit_learn(tmp_path, imagenet_run):
    subset = class_names("imagenet_o")
    columns = [IMAGENET.index(name) for name in subset]
    outliers = write_images(tmp_path / "outliers", subset, 1, seed=1)
    validation = write_images(tmp_path / "validation", subset, 2, seed=2)
    write_images(validation, ("n01440764",), 5)  # a class that is not among the 200
    files = [*files_of(outliers, subset), *files_of(validation, subset)]
    logits = torch.from_numpy(logits_one_by_one(imagenet_run, files)[:, columns]).double()
    scores = -logits.softmax(1).amax(1).numpy()
    suite = create_suite(imagenet_run, tmp_path / "saved")
    report = suite.evaluate_outliers(outliers, validation)
    assert report["aupr"] == pytest.approx(average_precision_score(np.arange(600) < 200, scores), abs=1e-5)
    assert (report["pictures"], report["inliers"]) == (200, 400)
    shutil.rmtree(outliers / subset[0])
    with pytest.raises(DataError, match=subset[0]):
        suite.evaluate_outliers(outliers, validation)


def test_a_model_with_other_class_names_raises(tmp_path, two_class_run):
    with pytest.raises(DataError, match=r"^imagenet_a: .*WordNet"):
        create_suite(two_class_run, tmp_path / "saved").evaluate_subset("imagenet_a", tmp_path)


def test_imagenet_c_and_feature_deviations_equal_single_images(tmp_path, two_class_run, complete_imagenet_c):
    clean = write_images(tmp_path / "clean", CLASSES, NUM_IMAGES, seed=1, size=(20, 20))
    suite = create_suite(two_class_run, tmp_path / "saved")
    report = suite.evaluate_corruptions(complete_imagenet_c, clean)
    labels = np.repeat([0, 1], NUM_IMAGES)

    def accuracy(name, level):
        files = files_of(complete_imagenet_c / name / str(level), CLASSES)
        return (logits_one_by_one(two_class_run, files, resize=False).argmax(axis=1) == labels).mean()

    expected = {name: [accuracy(name, level) for level in range(1, 6)] for name in ALEXNET_ERRORS}
    assert report["accuracies"] == expected and report["pictures"] == 2 * NUM_IMAGES
    errors = [1 - np.mean(row) for row in expected.values()]
    assert report["mce"] == pytest.approx(np.mean(np.divide(errors, list(ALEXNET_ERRORS.values()))))
    assert report["by_severity"] == pytest.approx(np.mean(list(expected.values()), axis=0))

    model = lookupvivit.load_model(two_class_run)
    with torch.no_grad(), classifier_inputs(model) as recorded:
        model(lookupvivit.preprocess_of(model)(clean / "n02" / "1.JPEG")[None])
        model(read_unresized(complete_imagenet_c / "fog" / "4" / "n02" / "1.JPEG")[None])
    first, second = (torch.cat(parts, dim=1)[0].double() for parts in (recorded[:2], recorded[2:]))
    deviation = ((first - second).norm() / first.norm()).item()
    deviations = suite.deviations()
    assert deviations.shape == (15, 5, 2 * NUM_IMAGES)
    assert deviations[list(ALEXNET_ERRORS).index("fog"), 3, NUM_IMAGES + 1] == pytest.approx(deviation, rel=1e-4)
    assert np.array(list(report["deviations"].values())) == pytest.approx(deviations.mean(axis=2), rel=1e-6)


def test_saved_results_are_reused_for_the_same_weights_only(tmp_path, two_class_run, imagenet_c, monkeypatch):
    saved, computed = tmp_path / "saved", []
    report = create_suite(two_class_run, saved).evaluate_corruptions(imagenet_c)
    original = RobustnessSuite.outputs

    def recorded_outputs(self, manifest, name, cropped=False):
        computed.append(name)
        return original(self, manifest, name, cropped)

    monkeypatch.setattr(RobustnessSuite, "outputs", recorded_outputs)
    (saved / "imagenet_c" / "snow_2.npz").unlink()
    (saved / "imagenet_c" / "fog_5.npz").write_bytes(b"corrupt")
    assert create_suite(two_class_run, saved).evaluate_corruptions(imagenet_c) == report
    assert sorted(computed) == ["imagenet_c/fog_5", "imagenet_c/snow_2"]
    computed.clear()
    image = next((imagenet_c / "snow" / "2").rglob("*.*"))
    os.utime(image, ns=(1, 1))  # replaced
    create_suite(two_class_run, saved).evaluate_corruptions(imagenet_c)
    assert computed == ["imagenet_c/snow_2"]
    computed.clear()
    other = small_model(tmp_path / "other", CLASSES, seed=1)
    create_suite(other, saved).evaluate_corruptions(imagenet_c)
    assert len(computed) == 75


def test_a_severity_with_other_images_raises(tmp_path, two_class_run, imagenet_c):
    write_images(imagenet_c / "frost" / "1", ("n02",), NUM_IMAGES + 1, size=(16, 16))
    with pytest.raises(DataError, match=r"frost/1: found 7 images"):
        create_suite(two_class_run, tmp_path / "saved").evaluate_corruptions(imagenet_c)


def test_nothing_is_averaged_over_missing_severities(tmp_path, two_class_run, imagenet_c):
    shutil.rmtree(imagenet_c / "snow")
    shutil.rmtree(imagenet_c / "fog" / "4")
    report = create_suite(two_class_run, tmp_path / "saved").evaluate_corruptions(imagenet_c)
    assert report["accuracies"]["snow"] == [None] * 5
    assert [accuracy is None for accuracy in report["accuracies"]["fog"]] == [False, False, False, True, False]
    assert not {"mce", "accuracy", "by_severity"} & set(report)


def test_missing_clean_images_raise(tmp_path, two_class_run, imagenet_c):
    clean = write_images(tmp_path / "val", CLASSES, NUM_IMAGES - 1)
    with pytest.raises(DataError, match=r"val: n01/2\.JPEG .*2 missing.*gaussian_noise/1"):
        create_suite(two_class_run, tmp_path / "saved").evaluate_corruptions(imagenet_c, clean)
