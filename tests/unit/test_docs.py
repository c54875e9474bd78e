"""The documentation names files, tests, pages and sections that exist."""

import re

import pytest
from support.paths import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:lookupvivit|data_pipelines|configs|tools|tests|docs)/[\w./-]+?)(?:::(\w+))?`")
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_and_tests_exist(document):
    named = [(file, test) for file, test in NAMED.findall(document.read_text(encoding="utf-8")) if "/my_" not in file]
    assert named or document.name != "FIDELITY.md"
    for file, test in named:
        assert (ROOT / file).exists(), file
        if test:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_sections(document):
    for groups in LINK.findall(document.read_text(encoding="utf-8")):
        target, _, section = "".join(groups).partition("#")
        if target.startswith("http"):
            continue
        page = (document.parent / target).resolve() if target else document
        assert page.exists(), target
        if section:
            assert section in map(anchor, HEADING.findall(page.read_text(encoding="utf-8"))), f"{target}#{section}"
