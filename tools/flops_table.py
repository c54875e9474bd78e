"""Print every cost of the paper's tables next to the cost that this library counts.

python tools/flops_table.py
python tools/flops_table.py --markdown        the table of docs/FIDELITY.md
"""

from lookupvivit.cli.flops import main

if __name__ == "__main__":
    main()
