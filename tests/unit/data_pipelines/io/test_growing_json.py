"""JSON files that grow."""

import json

import pytest

from data_pipelines.io import growing_json as module
from data_pipelines.io.growing_json import growing_json


@pytest.fixture
def clock(monkeypatch):
    """The time that the module sees; a test changes its only item."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_file_is_written_at_the_first_result_then_now_and_then_and_at_the_end(tmp_path, clock):
    file, results = tmp_path / "new" / "results.json", []

    def add(result):
        results.append(result)
        save()
        return json.loads(file.read_text())["results"]

    with growing_json(file, {"results": results}) as save:
        assert add(1) == [1]
        assert add(2) == [1]
        clock[0] += module.SECONDS
        assert add(3) == [1, 2, 3]
        assert add(4) == [1, 2, 3]
    assert json.loads(file.read_text())["results"] == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_an_error_loses_no_result_and_replaces_no_file_without_any(tmp_path, clock, error):
    file, results = tmp_path / "results.json", []
    file.write_text("earlier")
    with pytest.raises(error), growing_json(file, results):
        raise error
    assert file.read_text() == "earlier"
    with pytest.raises(error), growing_json(file, results) as save:
        for number in range(3):
            results.append(number)
            save()
        raise error
    assert json.loads(file.read_text()) == [0, 1, 2]
