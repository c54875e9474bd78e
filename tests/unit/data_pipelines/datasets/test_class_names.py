"""The class lists that ship with the package."""

from importlib import resources

import pytest
from support.paths import ROOT

from data_pipelines.datasets.class_names import FOLDER, LISTS, class_names, describe_classes
from data_pipelines.io.errors import DataError

COUNTS = {
    "kinetics400": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "something_something_v2": 174,
    "ucf101": 101,
    "hmdb51": 51,
    "imagenet": 1000,
    "imagenet_a": 200,
    "imagenet_o": 200,
    "imagenet_r": 200,
}


def test_every_list_has_its_classes_once_and_in_order():
    assert tuple(COUNTS) == LISTS and {path.stem for path in FOLDER.glob("*.txt")} == set(LISTS)
    for name, count in COUNTS.items():
        names = class_names(name)
        assert len(names) == len(set(names)) == count
        assert all(text == text.strip() != "" for text in names)
        # classInd.txt disregards case: Hammering comes before HammerThrow
        assert list(names) == sorted(names, key=str.lower if name == "ucf101" else None)


def test_kinetics_400_is_as_torchvisions_weights_have_it():
    categories = pytest.importorskip("torchvision.models.video").R3D_18_Weights.DEFAULT.meta["categories"]
    assert class_names("kinetics400") == tuple(categories)


def test_known_ids():
    assert class_names("ucf101").index("Hammering") == 34 and class_names("ucf101").index("JumpRope") == 47
    ssv2 = class_names("something_something_v2")  # the pairs that a horizontal flip turns into each other
    for left, verb in ((86, "Pulling"), (93, "Pushing")):
        assert {ssv2[left], ssv2[left + 1]} == {
            f"{verb} something from left to right",
            f"{verb} something from right to left",
        }


def test_imagenets_subsets_are_the_published_ones():
    imagenet = class_names("imagenet")
    ids = {kind: [imagenet.index(name) for name in class_names(f"imagenet_{kind}")] for kind in "aor"}
    # First ids as hendrycks/natural-adv-examples and hendrycks/imagenet-r print them, and how many they share.
    assert ids["a"][:5] == [6, 11, 13, 15, 17] and ids["r"][:5] == [1, 2, 4, 6, 8]
    assert ids["o"][:5] == [1, 51, 70, 79, 89]
    assert [len({*ids[x]} & {*ids[y]}) for x, y in ("ar", "ao", "or")] == [86, 59, 36]
    places = [(0, "n01440764"), (1, "n01443537"), (207, "n02099601"), (999, "n15075141")]  # tench, goldfish, retriever
    assert all(imagenet[place] == name for place, name in places)


def test_imagenets_ids_are_timms():
    pytest.importorskip("timm")
    lists = resources.files("timm.data") / "_info"
    for name in ("imagenet", "imagenet_a", "imagenet_r"):
        assert class_names(name) == tuple((lists / f"{name}_synsets.txt").read_text(encoding="utf-8").split())


def test_descriptions_and_unknown_lists():
    assert describe_classes(class_names("kinetics400")) == "kinetics400, 400 names, abseiling .. zumba"
    assert describe_classes(["a", "b"]) == "the data's own, 2 names, a .. b"
    with pytest.raises(DataError, match=r"'../passwords', must be one of kinetics400, "):
        class_names("../passwords")


def test_the_lists_are_installed_with_the_package(monkeypatch):
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.chdir(ROOT)
    package = setuptools.Distribution()
    package.parse_config_files()
    build = package.get_command_obj("build_py")
    build.ensure_finalized()
    files = {
        name
        for parcel, _, _, names in build.data_files
        if parcel == "data_pipelines.datasets.class_names"
        for name in names
    }
    assert files == {f"{name}.txt" for name in LISTS}
