"""Splits by source: no source on both sides, whatever the names; and which names belong to one source."""

import numpy as np
import pytest

from data_pipelines.datasets.group_split import split_by_group
from data_pipelines.datasets.kinetics import read_csv_classes, read_kinetics
from data_pipelines.datasets.manifest import VideoManifest
from data_pipelines.io.errors import DataError


def manifest_of(names_by_class, groups=None):
    paths = [f"{label}/{name}" for label, names in names_by_class.items() for name in names]
    labels = np.repeat(np.arange(len(names_by_class)), [len(names) for names in names_by_class.values()])
    return VideoManifest(paths, labels, tuple(names_by_class), "mine", groups=groups)


def split(manifest, source_of, fraction=0.25):
    """Both sides; checks that they are a partition without a common source, and have every class of several videos."""
    parts = split_by_group(manifest, fraction)
    train, val = parts["train"], parts["val"]
    assert sorted([*train.paths, *val.paths]) == sorted(manifest.paths)
    assert not {source_of(path) for path in train.paths} & {source_of(path) for path in val.paths}
    assert all((part.class_membership().sum(axis=0) > 0).all() for part in (train, val))
    assert fraction / 2 <= len(val) / len(manifest) <= 2 * fraction
    return train, val


def name_of(path):
    return path.split("/")[1]


@pytest.mark.parametrize(
    ("names", "source_of"),
    [
        (
            lambda label: [f"v_{label}_g{g:02d}_c{c:02d}.avi" for g in range(1, 9) for c in (1, 2, 3)],
            lambda n: n[-11:-8],
        ),
        (lambda _: [f"trip{v}-Scene-{s:03d}.mp4" for v in "abcdefgh" for s in (1, 2)], lambda n: n[:5]),
        (lambda _: [f"person{p}_v{v}.mp4" for p in range(9) for v in (0, 1)], lambda n: n[:7]),
        (lambda label: [f"{p}_{label}{i}.avi" for p in ("lena", "eli", "ira", "ido") for i in (1, 2)], lambda n: n[:3]),
        (lambda _: [f"{i}{i}-x_{t:06d}_{t + 10:06d}.mp4" for i in "abcdefgh" for t in (0, 7)], lambda n: n[:2]),
    ],
    ids=["UCF101", "PySceneDetect", "persons", "Weizmann", "Kinetics"],
)
def test_clips_of_one_source_are_on_one_side(names, source_of):
    manifest = manifest_of({label: names(label) for label in ("wave", "jack")})
    _, val = split(manifest, lambda path: source_of(name_of(path)))
    assert "groups by file name without numbers" in val.selection
    reordered = manifest.select(np.random.default_rng(0).permutation(len(manifest)).tolist())
    assert set(split_by_group(reordered, 0.25)["val"].paths) == set(val.paths)


@pytest.mark.parametrize("pattern", ["IMG_{:04d}.jpg", "clip ({}).mp4", "{:08x}.mp4", "{}.mp4"])
def test_names_that_are_only_numbered_are_single_videos(pattern):
    manifest = manifest_of(
        {label: [pattern.format(i + start) for i in range(20)] for label, start in (("a", 0), ("b", 20))}
    )
    _, val = split(manifest, lambda path: path)
    assert val.selection == "10 of 40 groups of one video each"


def test_random_groups_of_several_classes_and_sizes():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.integers(3, size=120)
        groups = [f"g{g}" for g in rng.integers(30, size=120)]
        videos = VideoManifest([f"{i}" for i in range(120)], labels, ("a", "b", "c"), "mine", groups=groups)
        source = dict(zip(videos.paths, groups, strict=True))
        split(videos, source.__getitem__)


def test_a_single_source_cannot_be_split():
    manifest = manifest_of({"a": ["1.mp4", "2.mp4"]}, groups=["x", "x"])
    with pytest.raises(DataError, match="mine: no group can be held out"):
        split_by_group(manifest, 0.2)


def test_a_table_with_names_and_groups(tmp_path):
    file = tmp_path / "train.csv"
    rows = [f'"a, {i}.mp4",{("walk", "run fast")[i % 2]},{i % 5},p{i // 2}' for i in range(20)]
    file.write_text("\n".join(["path,label,rating,group", *rows]))
    assert read_csv_classes(file) == ("run fast", "walk")
    manifest = read_kinetics(file, tmp_path)
    assert manifest.class_names == ("run fast", "walk") and manifest.labels.tolist() == [1, 0] * 10
    assert manifest.paths[3] == str(tmp_path / "a, 3.mp4")
    source = dict(zip(manifest.paths, manifest.groups, strict=True))
    _, val = split(manifest, source.__getitem__)
    assert "of 10 groups in the list; 2 of 'p" in val.selection


def test_a_table_with_several_labels(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("path,labels\n1.mp4,dog; cat\n2.mp4,\n3.mp4,dog\n")
    manifest = read_kinetics(file, tmp_path)
    assert manifest.is_multi_label and manifest.class_names == ("cat", "dog")
    assert manifest.labels.tolist() == [[True, True], [False, False], [False, True]]
    swapped = manifest.in_class_order(("dog", "cat"), "other")
    assert swapped.labels.tolist() == [[True, True], [False, False], [True, False]]
    with pytest.raises(DataError, match=r"train\.csv:2: found the label 'dog', expected one of 1 class names"):
        read_kinetics(file, tmp_path, class_names=["cat"])
