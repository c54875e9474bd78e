"""Where the repository and the optional real data are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"  # real clips and reference results; tests that need them skip without
