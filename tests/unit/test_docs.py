"""The documents name files and tests that exist."""

import re

import pytest
from support.paths import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:lookupvivit|data_pipelines|configs|tools|tests|docs)/[\w./-]+?)(?:::(\w+))?`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_and_tests_exist(document):
    named = NAMED.findall(document.read_text(encoding="utf-8"))
    assert named
    for file, test in named:
        assert (ROOT / file).exists(), file
        if test:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
