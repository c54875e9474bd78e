"""Score the stored predictions of a test for fewer views or one classifier, and per class. Needs neither GPU nor torch.

    python tools/aggregate.py runs/k400_9x9x8/predictions/4x3.npz
    python tools/aggregate.py runs/k400_9x9x8/predictions/4x3.npz --clips 1 --crops 1 --classifier compressed
    python tools/aggregate.py runs/k400_9x9x8/predictions/4x3.npz --average softmax --json

Without options, it scores all subsets of views and all classifiers. With --clips, --crops or --classifier, it scores
this one, prints the most frequent confusions, and writes a class table and the confusion matrix next to the file.
Exit status: 0; 1 if the file cannot be used; 2 for an error in the command.
"""

from lookupvivit.cli.aggregate import main

if __name__ == "__main__":
    main()
