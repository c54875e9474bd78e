"""CSV files with a header: separators, quotes and a byte order mark."""

import pytest

from data_pipelines.io.csv_files import read_csv
from data_pipelines.io.errors import DataError


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_with_a_separator(tmp_path, separator):
    file = tmp_path / "train.csv"
    rows = [("clip", "start", "category"), ("a.mp4", "0", '"x,;\ty"'), ("b.mp4", "1")]
    file.write_text("\n".join(map(separator.join, rows)), encoding="utf-8-sig")
    found = read_csv(file, ["category", "clip"], separator=separator)
    assert next(found) == (2, ["x,;\ty", "a.mp4"])
    with pytest.raises(DataError, match=r"train\.csv:3: found 2 values, expected 3"):
        next(found)
    with pytest.raises(DataError, match=f"found the columns clip{separator}start{separator}category, expected label"):
        next(read_csv(file, ["label"], separator=separator))


def test_the_error_of_a_name_with_a_line_feed_is_one_line(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text('clip,"sta\nrt"\n')
    with pytest.raises(DataError, match=r"found the columns clip,sta\\nrt, expected label$"):
        next(read_csv(file, ["label"]))
