"""Print what a run directory contains: the model and its cost, accuracies, and where its figures are.

python tools/summarize.py --run runs/camera_motion
"""

from lookupvivit.cli.summarize import main

if __name__ == "__main__":
    main()
