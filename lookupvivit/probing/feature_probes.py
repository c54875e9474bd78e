"""Probes on features that `lookupvivit.extract_features` has stored, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from data_pipelines.io.errors import DataError
from lookupvivit.evaluation.array_files import load_arrays
from lookupvivit.evaluation.metrics import half_interval, wilson_interval
from lookupvivit.features.folders import FeatureSet
from lookupvivit.probing import PROBES
from lookupvivit.probing.few_shot import SHOTS, few_shot_scores
from lookupvivit.probing.nearest_neighbours import neighbour_votes
from lookupvivit.probing.trained import (
    AttentiveProbe,
    Examples,
    PooledExamples,
    Recipe,
    Setting,
    TokenExamples,
    linear_probe,
    probe_logits,
    train_probes,
)

NEIGHBOURS = (1, 3, 5, 10, 20, 50, 100, 200)
LINEAR = Recipe(Setting.grid((1e-4, 1e-3, 1e-2, 1e-1), (0.0, 1e-2, 1e-1, 1.0)), epochs=100, batch_size=256)
ATTENTIVE = Recipe(Setting.grid((1e-4, 3e-4, 1e-3), (1e-2, 1e-1)), epochs=20, batch_size=16)
HELD_OUT = 0.2  # share of the training examples on which settings are compared


@dataclass(frozen=True)
class ProbeScore:
    """The accuracy of one probe on the test examples.

    Attributes:
        probe: its name.
        setting: what was chosen on the held-out examples, or the number of seeds.
        top1: per cent.
        interval: 95 %, per cent: Wilson's over the test examples, or Student's t over the seeds.
        held_out: top-1 on the held-out examples by setting, per cent.
    """

    probe: str
    setting: str
    top1: float
    interval: tuple[float, float]
    held_out: dict[str, float]


def probe_features(
    train: FeatureSet,
    test: FeatureSet,
    probes: Sequence[str] = PROBES,
    *,
    streams: Sequence[str] | None = None,
    shots: Sequence[int] = SHOTS,
    linear: Recipe = LINEAR,
    attentive: Recipe = ATTENTIVE,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[ProbeScore]:
    """Fit probes to training features, and yield their accuracies on test features.

    Settings (learning rate and weight decay, or the number of neighbours) are chosen on a part of the training examples
    that is held out. The probe with the best setting is then fitted to all training examples.

    Args:
        train, test: of the same model and classes.
        probes: names among `PROBES`. The attentive probe reads the tokens of the last stored block, the others pooled
            features.
        streams: which pooled features; default: all, next to each other.
        shots: training examples per class of the few-shot probes, as far as every class has as many.
        linear, attentive: how these probes are trained.
        seed: of the choice of held-out examples.
        device: to compute on.

    Raises:
        DataError: the features do not fit together, have no labels or tokens, or have one example per class.
    """
    require_comparable(train, test)
    problem = _Problem(train, test, _pooled(train, streams), _pooled(test, streams), seed, device)
    for name in probes:
        if name == "linear":
            yield problem.linear(linear)
        elif name == "knn":
            yield problem.nearest()
        elif name == "few-shot":
            yield from problem.few_shot(shots)
        elif name == "attentive":
            yield problem.attentive(attentive)
        else:
            raise DataError(f"probes: found {name!r}, expected some of {', '.join(PROBES)}")


class _Problem:
    """Training and test examples. Their pooled features are (N, D) and (M, D)."""

    def __init__(
        self,
        train: FeatureSet,
        test: FeatureSet,
        features: np.ndarray,
        test_features: np.ndarray,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.train, self.test, self.features, self.test_features = train, test, features, test_features
        self.labels, self.test_labels, self.num_classes = train.labels, test.labels, len(train.class_names)
        self.kept, self.held_out = split_by_class(self.labels, HELD_OUT, seed)
        self.device = device

    def linear(self, recipe: Recipe) -> ProbeScore:
        inputs, test_inputs = (
            PooledExamples(features, self.features, self.device) for features in (self.features, self.test_features)
        )
        width = self.features.shape[1]
        return self._trained("linear", lambda: linear_probe(width, self.num_classes), inputs, test_inputs, recipe)

    def attentive(self, recipe: Recipe) -> ProbeScore:
        grids = token_grids(self.train)
        if not grids or grids != token_grids(self.test):
            raise DataError(
                "attentive probe: found training and test features without tokens of the same block, expected those of "
                "tools/features.py --blocks last"
            )
        width = load_arrays(self.train.files[0], grids[:1])[grids[0]].shape[-1]
        inputs, test_inputs = (TokenExamples(part.files, grids, self.device) for part in (self.train, self.test))
        return self._trained("attentive", lambda: AttentiveProbe(width, self.num_classes), inputs, test_inputs, recipe)

    def _trained(
        self, name: str, create: Callable[[], nn.Module], inputs: Examples, test_inputs: Examples, recipe: Recipe
    ) -> ProbeScore:
        """Train one probe per setting, choose a setting, and train with it on all examples."""
        labels = self.labels[self.held_out]
        probes = train_probes(create, inputs, self.kept, self.labels, recipe, self.device)
        scores = probe_logits(probes, inputs, self.held_out, recipe.batch_size)  # (P, n, K)
        accuracies, losses = [_top1(each, labels) for each in scores], [_loss(each, labels) for each in scores]
        best = min(range(len(probes)), key=lambda i: (-accuracies[i], losses[i]))
        chosen = replace(recipe, settings=recipe.settings[best : best + 1])
        everything = np.arange(len(self.labels))
        probes = train_probes(create, inputs, everything, self.labels, chosen, self.device)
        [scores] = probe_logits(probes, test_inputs, np.arange(len(self.test_labels)), recipe.batch_size)
        by_setting = dict(zip(map(str, recipe.settings), accuracies, strict=True))
        return self._score(name, str(recipe.settings[best]), scores, by_setting)

    def nearest(self) -> ProbeScore:
        kept, held_out = self.kept, self.held_out
        counts = [count for count in NEIGHBOURS if count <= len(kept)]
        votes = neighbour_votes(
            self.features[kept],
            self.labels[kept],
            self.features[held_out],
            self.num_classes,
            counts,
            device=self.device,
        )
        accuracies = {count: _top1(each.numpy(), self.labels[held_out]) for count, each in votes.items()}
        best = max(counts, key=lambda count: (accuracies[count], count))
        votes = neighbour_votes(
            self.features, self.labels, self.test_features, self.num_classes, [best], device=self.device
        )
        by_setting = {f"k = {count}": accuracy for count, accuracy in accuracies.items()}
        return self._score("k-NN", f"k = {best}", votes[best].numpy(), by_setting)

    def few_shot(self, shots: Sequence[int]) -> Iterator[ProbeScore]:
        smallest = int(np.bincount(self.labels, minlength=self.num_classes).min())
        possible = [count for count in shots if count <= smallest]
        data = self.features, self.labels, self.test_features, self.test_labels
        for score in few_shot_scores(*data, self.num_classes, possible):
            mean, half = 100 * score.mean, half_interval([100 * accuracy for accuracy in score.accuracies])
            assert half is not None  # there are several seeds
            interval = max(0.0, mean - half), min(100.0, mean + half)
            name = f"ridge, {score.shots} per class"
            yield ProbeScore(name, f"{len(score.accuracies)} seeds", mean, interval, {})

    def _score(self, probe: str, setting: str, scores: np.ndarray, held_out: dict[str, float]) -> ProbeScore:
        correct, total = int((scores.argmax(axis=1) == self.test_labels).sum()), len(self.test_labels)
        low, high = wilson_interval(correct, total)
        return ProbeScore(probe, setting, 100 * correct / total, (100 * low, 100 * high), held_out)


def _top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Per cent; 0 for a probe that has diverged."""
    return float(100 * (scores.argmax(axis=1) == labels).mean()) if np.isfinite(scores).all() else 0.0


def _loss(scores: np.ndarray, labels: np.ndarray) -> float:
    loss = float(F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels)))
    return loss if math.isfinite(loss) else math.inf


# ----------------------------------------------------------------------------------------------------------------------
# Examples


def split_by_class(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out about ``share`` of the examples of each class, at least one if the class has two.

    Returns:
        Indices of the other examples and of those held out, ascending.

    Raises:
        DataError: no class has two examples.
    """
    rng, chosen = np.random.default_rng(seed), []
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
        chosen.append(of_class[:count])
    held_out = np.sort(np.concatenate(chosen))
    if not len(held_out):
        raise DataError(f"training features: found one example of each of {len(labels)} classes, expected at least two")
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def require_comparable(train: FeatureSet, test: FeatureSet) -> None:
    """Check that training and test features have labels of the same classes and are of the same model.

    Raises:
        DataError: they do not.
    """
    for part, name in ((train, "training"), (test, "test")):
        if num_unlabelled := int((part.labels < 0).sum()):
            raise DataError(
                f"{name} features: found {num_unlabelled} of {len(part.labels)} videos without a label, expected those "
                "of a dataset (tools/features.py --cfg)"
            )
    if train.class_names != test.class_names:
        raise DataError(f"test features: found {len(test.class_names)} classes that differ from the training features'")
    for key in ("model", "preprocessing", "compressed_size", "streams"):
        found, expected = test.settings.get(key), train.settings.get(key)
        if found != expected:
            raise DataError(f"test features: {key}: found {found}, expected {expected}, as in the training features")


def _pooled(features: FeatureSet, streams: Sequence[str] | None) -> np.ndarray:
    """The chosen streams next to each other, (N, D)."""
    for stream in streams or ():
        if stream not in features.streams:
            raise DataError(f"streams: found {stream!r}, expected some of {', '.join(features.streams)}")
    return np.concatenate([features.streams[stream] for stream in streams or features.streams], axis=1)


def token_grids(features: FeatureSet) -> list[str]:
    """The names of the token arrays of the last stored block; empty if no tokens are stored."""
    blocks = features.settings.get("blocks")
    if not blocks:
        return []
    return [name for name in load_arrays(features.files[0]) if name.startswith(f"block{max(blocks)}_")]
