"""Test a model on ImageNet-A, -R, -O and -C (paper, Tables 2 and 6, Fig. 4).

    python tools/test_robustness.py --run runs/i1k_b16_10x10 --imagenet data/imagenet/val \\
        --imagenet-a data/imagenet-a --imagenet-r data/imagenet-r \\
        --imagenet-o data/imagenet-o --imagenet-c data/imagenet-c

Results are saved for every image. A second call continues from them, and a call for other datasets adds theirs to the
tables and to robustness.json. ImageNet-O and the feature deviation need ImageNet's validation images. Missing datasets
and corruptions are reported, and no average is computed without them.
"""

from lookupvivit.cli.robustness import main

if __name__ == "__main__":
    main()
