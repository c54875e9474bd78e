"""Check whether this machine can train and read videos, and print what to do where it cannot: one line per check.

    python tools/doctor.py
    python tools/doctor.py --output /scratch/runs --data /data/k400     also measures the disks that a run will use

The checks change and delete nothing; they write temporary files only. Exit status 1: a check failed; 2: the command is
wrong.
"""

from lookupvivit.cli.doctor.program import main

if __name__ == "__main__":
    main()
