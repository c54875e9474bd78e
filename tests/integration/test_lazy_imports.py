"""What `import lookupvivit` does not import."""

import subprocess
import sys


def test_importing_the_library_does_not_import_profiling():
    code = "import sys, lookupvivit; print([name for name in sys.modules if name.startswith('lookupvivit.profiling')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
