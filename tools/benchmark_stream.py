"""Measure predict on long generated videos, and the delay of Stream, on one core, and print Markdown tables.

python tools/benchmark_stream.py --run runs/camera_motion [--minutes 6 60]
"""

from lookupvivit.cli.benchmark_stream import main

if __name__ == "__main__":
    main()
