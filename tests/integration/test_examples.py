"""The notebooks run from start to end; their files hold no results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def code_cells(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def execute(source, names):
    """Run a cell of Python, or of commands for the shell: each starts with an exclamation mark, as in Jupyter."""
    text = "".join(source)
    if not text.startswith("!"):
        exec(compile(text, "cell", "exec"), names)
        return
    for line in text.replace("\\\n", "").splitlines():
        subprocess.run(line.removeprefix("!"), shell=True, check=True)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_file_holds_no_results(notebook):
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code_cells(notebook))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_every_cell_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    with matplotlib.rc_context({"backend": "Agg"}):
        names = {"__name__": "__main__"}
        for cell in code_cells(notebook):
            execute(cell["source"], names)
