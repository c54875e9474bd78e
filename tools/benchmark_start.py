"""Measure how long the tools take to start, and predict to process many short videos, and print a Markdown table.

python tools/benchmark_start.py [--run RUN] [--videos 280] [--rounds 5]
"""

from lookupvivit.cli.benchmark_start import main

if __name__ == "__main__":
    main()
