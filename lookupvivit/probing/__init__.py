"""Probes on frozen features: few-shot transfer to other image datasets (paper, Table 9). Modules in reading order:

few_shot    ridge regression on few images per class, with NumPy alone
transfer    the same for a trained model and image folders

Run `python tools/few_shot.py --run RUN --train FOLDER --test FOLDER`.
"""
