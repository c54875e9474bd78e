"""Train and test variants of a configuration with several seeds; write a table and a figure.

    python tools/study.py configs/studies/table5.yaml --jobs 2
    python tools/study.py configs/studies/table5.yaml --report          results of the runs that are finished

The same command continues an interrupted study. docs/EVALUATION.md describes the file.
"""

from lookupvivit.cli.study import main

if __name__ == "__main__":
    main()
