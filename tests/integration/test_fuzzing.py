"""A sample of tests/fuzz/fuzz_readers.py."""

import sys

import pytest
from support.paths import ROOT


@pytest.mark.slow
@pytest.mark.cold  # PyAV cannot encode VP9 in a process that has loaded decord
def test_readers_of_mutated_files_raise_their_own_errors_only(tmp_path, shell):
    script = str(ROOT / "tests" / "fuzz" / "fuzz_readers.py")
    printed = shell([sys.executable, script, "--count", "1000", "--failures", str(tmp_path / "failures")])
    assert "1000 files, 0 failures" in printed
