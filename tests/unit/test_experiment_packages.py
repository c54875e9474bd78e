"""Importing an experiment package is cheap: its modules are imported when they are needed."""

import subprocess
import sys


def test_experiment_packages_import_neither_torch_nor_matplotlib():
    code = """
import sys
import lookupvivit.accuracy_cost, lookupvivit.camera_motion, lookupvivit.captioning
import lookupvivit.evidence, lookupvivit.probing, lookupvivit.robustness
print([name for name in ("torch", "matplotlib", "tokenizers", "pydantic") if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.strip() == "[]", process.stdout + process.stderr
