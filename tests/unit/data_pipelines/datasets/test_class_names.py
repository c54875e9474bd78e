"""The class lists in the package: complete, in the published order, installed."""

from importlib import resources

import pytest
from support.paths import ROOT

from data_pipelines.datasets.class_names import CLASS_LISTS, FOLDER, class_names, describe_classes
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


def test_lists_are_complete_sorted_and_unique():
    assert tuple(COUNTS) == CLASS_LISTS and {path.stem for path in FOLDER.glob("*.txt")} == set(CLASS_LISTS)
    for name, count in COUNTS.items():
        names = class_names(name)
        assert len(names) == len(set(names)) == count
        assert all(text == text.strip() != "" for text in names)
        # classInd.txt ignores case: Hammering precedes HammerThrow
        assert list(names) == sorted(names, key=str.lower if name == "ucf101" else None)


def test_kinetics_400_matches_torchvision():
    categories = pytest.importorskip("torchvision.models.video").R3D_18_Weights.DEFAULT.meta["categories"]
    assert class_names("kinetics400") == tuple(categories)


def test_known_ids():
    assert class_names("ucf101").index("Hammering") == 34 and class_names("ucf101").index("JumpRope") == 47
    ssv2 = class_names("something_something_v2")  # classes that a horizontal flip exchanges
    for left, verb in ((86, "Pulling"), (93, "Pushing")):
        assert {ssv2[left], ssv2[left + 1]} == {
            f"{verb} something from left to right",
            f"{verb} something from right to left",
        }


def test_imagenet_subsets_match_the_published_ids():
    imagenet = class_names("imagenet")
    ids = {kind: [imagenet.index(name) for name in class_names(f"imagenet_{kind}")] for kind in "aor"}
    # The first ids printed by hendrycks/natural-adv-examples and hendrycks/imagenet-r, and the sizes of overlaps.
    assert ids["a"][:5] == [6, 11, 13, 15, 17] and ids["r"][:5] == [1, 2, 4, 6, 8]
    assert ids["o"][:5] == [1, 51, 70, 79, 89]
    assert [len({*ids[x]} & {*ids[y]}) for x, y in ("ar", "ao", "or")] == [86, 59, 36]
    known = {0: "n01440764", 1: "n01443537", 207: "n02099601", 999: "n15075141"}  # tench, goldfish, retriever, tissue
    assert {class_id: imagenet[class_id] for class_id in known} == known


def test_imagenet_matches_timm():
    pytest.importorskip("timm")
    lists = resources.files("timm.data") / "_info"
    for name in ("imagenet", "imagenet_a", "imagenet_r"):
        assert class_names(name) == tuple((lists / f"{name}_synsets.txt").read_text(encoding="utf-8").split())


def test_descriptions():
    assert describe_classes(class_names("kinetics400")) == "kinetics400, 400 names, abseiling .. zumba"
    assert describe_classes(["\x1b[31m", "\n"]) == "custom, 2 names, \\x1b[31m .. \\n"
    assert describe_classes(["a", "b"]) == "custom, 2 names, a .. b"


def test_unknown_lists_are_rejected():
    with pytest.raises(DataError, match=r"'\.\./passwords', expected .*kinetics400"):
        class_names("../passwords")


def test_lists_are_installed_with_the_package(monkeypatch):
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.chdir(ROOT)
    package = setuptools.Distribution()
    package.parse_config_files()
    build = package.get_command_obj("build_py")
    build.ensure_finalized()
    files = {
        name
        for package_name, _, _, names in build.data_files
        if package_name == "data_pipelines.datasets.class_names"
        for name in names
    }
    assert files == {f"{name}.txt" for name in CLASS_LISTS}
