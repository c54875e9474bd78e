"""Folders of ImageNet-C."""

import pytest

from data_pipelines.datasets.imagenet_c import corruption_folders, unrecognized_folders
from data_pipelines.io.errors import DataError, MissingDataError

NAMES = ("fog", "snow", "glass_blur")


def test_corruptions_with_and_without_archive_folders(tmp_path):
    for level in range(1, 6):
        (tmp_path / "fog" / str(level)).mkdir(parents=True)
        if level != 4:
            (tmp_path / "blur" / "glass_blur" / str(level)).mkdir(parents=True)
    found = corruption_folders(tmp_path, NAMES)
    assert list(found) == list(NAMES)
    assert found["fog"] == {level: tmp_path / "fog" / str(level) for level in range(1, 6)}
    assert found["snow"] == {}
    assert list(found["glass_blur"]) == [1, 2, 3, 5]
    assert found["glass_blur"][3] == tmp_path / "blur" / "glass_blur" / "3"
    for name in ("frog", "blur/gass_blur", "blur/.cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "readme.txt").touch()
    assert unrecognized_folders(tmp_path, NAMES) == ["frog", "blur/gass_blur"]


def test_missing_and_duplicate_corruptions(tmp_path):
    with pytest.raises(MissingDataError, match="absent: no such folder"):
        corruption_folders(tmp_path / "absent", NAMES)
    with pytest.raises(MissingDataError, match=rf"{tmp_path}: .*fog/1"):
        corruption_folders(tmp_path, NAMES)
    for folder in ("fog", "weather/fog"):
        (tmp_path / folder / "1").mkdir(parents=True)
    with pytest.raises(DataError, match=r"fog twice.*weather/fog"):
        corruption_folders(tmp_path, NAMES)
