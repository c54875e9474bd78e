"""Probes on frozen features. Modules in reading order:

few_shot            ridge regression on few images per class (paper, Table 9), with NumPy alone
transfer            the same for a trained model and image folders
nearest_neighbours  votes of the nearest training features
trained             linear and attentive probes, for many learning rates and weight decays at once
feature_probes      all of them on stored features, with settings chosen on held-out training features

Run `python tools/few_shot.py --run RUN --train FOLDER --test FOLDER`, or on stored features
`python tools/probe.py FEATURES --test FEATURES`.
"""

PROBES = ("linear", "knn", "few-shot", "attentive")
