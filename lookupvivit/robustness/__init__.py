"""Robustness of image models on ImageNet-A, -R, -O and -C (paper, Tables 2 and 6, Fig. 4). Modules in reading order:

metrics     accuracy on subsets, outlier detection, mean corruption error and feature deviation
suite       a model on the datasets, with saved results
report      robustness.json and text tables
figures     feature deviations

Run `python tools/test_robustness.py --run RUN --imagenet-a FOLDER ...`.
"""
