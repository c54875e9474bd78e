"""Measure how fast this machine reads training clips and test views from videos, and print a Markdown table.

python tools/benchmark_loader.py VIDEO [VIDEO ...] [--workers 0 1 2]
"""

from lookupvivit.cli.benchmark_loader import main

if __name__ == "__main__":
    main()
