"""Measure on a GPU what the documentation and the choice of kernels depend on, in at most 8 minutes.

    python tools/gpu_report.py --install
    TRITON_INTERPRET=1 python tools/gpu_report.py --dry-run

A report that was interrupted, or did not finish in time, continues in the next call.
"""

from lookupvivit.cli.gpu_report import main

if __name__ == "__main__":
    main()
