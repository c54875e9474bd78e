"""Measure few-shot transfer of a model to a labelled image dataset (paper, Table 9).

    python tools/few_shot.py --run runs/i21k_b16_10x10 --train data/pets/train --test data/pets/test

Both folders contain one folder of images per class. A linear probe is fitted in closed form to the model's frozen
features of a few training images per class, for three seeds, and tested on all test images.
"""

from lookupvivit.cli.few_shot import main

if __name__ == "__main__":
    main()
