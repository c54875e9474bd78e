"""Child processes import what their parent would import, never from the current directory."""

import subprocess
import sys

import pytest
from support.paths import ROOT
from support.videos import encode

MODULES = ("av", "select", "json", "runpy", "multiprocessing", "numpy", "torch")
READ = """
from data_pipelines.video.reader import read_frames
assert read_frames("clip.mp4", [3]).shape == (1, 64, 96, 3)
"""
DOCTOR = """
from lookupvivit.cli.doctor import programs
outcome = programs.run("import av, sys, torch.distributed.run; print('{}', sys.argv[1])", 100.0, "argument")
assert outcome.status == 0 and "argument" in outcome.output, outcome
"""
POOL = """
from data_pipelines.io.processes import process_pool
if __name__ == "__main__":
    with process_pool(1) as pool:
        assert pool.submit(abs, -3).result() == 3
"""


@pytest.mark.parametrize("script", [READ, DOCTOR, POOL], ids=["decoding process", "doctor", "pool"])
def test_modules_in_the_current_directory_are_not_imported(tmp_path, script):
    """A folder of downloads may contain an ``av.py``; a file name decides nothing about which code runs."""
    if script == POOL and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 starts the processes of a pool with the current directory on the import path")
    downloads, program = tmp_path / "downloads", tmp_path / "program"
    downloads.mkdir()
    program.mkdir()
    encode(downloads / "clip.mp4", frames=5)
    for name in MODULES:
        (downloads / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{name}\\n')")
    (program / "program.py").write_text(f"import sys; sys.path.append({str(ROOT)!r})\n{script}")
    subprocess.run([sys.executable, str(program / "program.py")], check=True, cwd=downloads, timeout=300)
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


def test_python_processes_are_started_in_one_place():
    folders = ("data_pipelines", "lookupvivit", "tools")
    sources = {file: file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py")}
    starts = ("[sys.executable", "(sys.executable,", 'get_context("spawn")')
    starting = {file.name for file, source in sources.items() if any(start in source for start in starts)}
    assert starting == {"processes.py"}
