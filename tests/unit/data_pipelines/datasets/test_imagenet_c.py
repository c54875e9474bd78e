import pytest

from data_pipelines.datasets.imagenet_c import corruption_folders
from data_pipelines.io.errors import DataError, MissingDataError

NAMES = ("fog", "snow", "glass_blur")


def test_corruptions_are_found_side_by_side_and_in_their_archives_folders(tmp_path):
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


def test_what_is_no_imagenet_c_is_told(tmp_path):
    with pytest.raises(MissingDataError, match=r"absent: no such folder; it must hold a folder per corruption, fog"):
        corruption_folders(tmp_path / "absent", NAMES)
    with pytest.raises(MissingDataError, match=r"found none of the 3 corruptions, looked for such as .*fog/1"):
        corruption_folders(tmp_path, NAMES)
    for place in ("fog", "weather/fog"):
        (tmp_path / place / "1").mkdir(parents=True)
    with pytest.raises(DataError, match="found fog twice"):
        corruption_folders(tmp_path, NAMES)
