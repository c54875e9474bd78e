"""Motion-based token keeping before a still camera, against keeping as many tokens at random or uniformly."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data_pipelines.transforms.normalization import to_model_input
from lookupvivit.layers.token_selection import num_kept_tokens, share_of_changes
from lookupvivit.models.base import Model
from lookupvivit.profiling.timing import Spread, speedups, time_calls
from lookupvivit.sizes import Keep

WARMUP = 1
CPU = torch.device("cpu")
SELECTIONS = ("motion", "uniform", "random")
NUM_RANDOM = 5  # random selections per batch


class Rule(NamedTuple):
    """How many tokens motion-based keeping keeps.

    Attributes:
        share: of all tokens; None for the threshold.
        threshold: the tokens that a clip needs, see `lookupvivit.layers.token_selection.share_of_changes`.
    """

    share: float | None = None
    threshold: float = 0.0

    def keep(self, video: Tensor, model: Model) -> Keep:
        """The ``keep`` of a call with clips (B, 3, T, H, W)."""
        if self.share is not None:
            return Keep(self.share, "motion")
        return Keep(float(share_of_changes(video, model.tubelet, self.threshold).max()), "motion")

    def __str__(self) -> str:
        return f"threshold {self.threshold:g}" if self.share is None else str(Keep(self.share, "motion"))


# A mean change of 0.05 is 6 grey levels of 255.
RULES = (Rule(0.3), Rule(0.5), Rule(threshold=0.05), Rule(threshold=0.1))


@dataclass(frozen=True)
class BatchResult:
    """One batch of B clips.

    Attributes:
        share: kept tokens divided by all tokens.
        times: CPU seconds per clip of each round, of the full model and of motion-based and uniform keeping.
        changes: of each clip's logits relative to those of the full model, by selection; the mean over the random ones.
        flips: share of the calls that predict another class than the full model, of each clip, by selection.
    """

    share: float
    times: dict[str, list[float]]
    changes: dict[str, list[float]]
    flips: dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """One rule on one set of clips; changes and flips are empty if only the time was measured.

    Attributes:
        clips: name of the set.
        rule: as text.
        batches: number of calls that were compared, each with one batch.
        share: kept tokens divided by all tokens: smallest, median and largest.
        milliseconds: CPU time per clip, medians of the full model and of motion-based and uniform keeping.
        speed: of both relative to the full model, of the same batch in the same round.
        changes: norm of the change of the centred logits relative to the norm of the full model's, by selection.
        flips: share of the clips with another predicted class, by selection.
    """

    clips: str
    rule: str
    batches: int
    share: tuple[float, float, float]
    milliseconds: dict[str, float]
    speed: dict[str, Spread]
    changes: dict[str, Spread]
    flips: dict[str, float]

    @classmethod
    def of(cls, clips: str, rule: Rule, results: Sequence[BatchResult]) -> Row:
        shares = [result.share for result in results]
        times = _joined([result.times for result in results])
        changes = _joined([result.changes for result in results])
        flips = _joined([result.flips for result in results])
        return cls(
            clips,
            str(rule),
            len(results),
            (min(shares), statistics.median(shares), max(shares)),
            {name: 1000 * statistics.median(values) for name, values in times.items()},
            {name: speedups(times["full"], values) for name, values in times.items() if name != "full"},
            {name: Spread.of(values) for name, values in changes.items()},
            {name: statistics.mean(values) for name, values in flips.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON types only, rounded to four significant digits."""
        return _rounded(asdict(self))


def measure(model: Model, name: str, batches: Iterable[Tensor], num_random: int, rounds: int) -> list[Row]:
    """Measure every rule of `RULES` on every batch.

    Args:
        model: in eval mode, on the CPU.
        name: of the clips.
        batches: uint8 (B, 3, T, H, W), at least one.
        num_random: number of random selections; 0 to measure only the time.
        rounds: of the timing, see `lookupvivit.profiling.timing.time_calls`.
    """
    with torch.inference_mode():
        results = [measure_batch(model, to_model_input(batch), RULES, num_random, rounds) for batch in batches]
    return [Row.of(name, rule, of_rule) for rule, of_rule in zip(RULES, zip(*results, strict=True), strict=True)]


def measure_batch(
    model: Model, videos: Tensor, rules: Sequence[Rule], num_random: int, rounds: int
) -> list[BatchResult]:
    """Measure each rule on clips (B, 3, T, H, W). The time of motion-based keeping includes that of the rule."""
    keeps = [rule.keep(videos, model) for rule in rules]
    calls: list[Callable[[], object]] = [partial(model, videos)]
    for rule, keep in zip(rules, keeps, strict=True):
        calls += [partial(_keep_by, rule, model, videos), partial(model, videos, keep=Keep(keep.share, "uniform"))]
    times = time_calls(calls, CPU, range(rounds), WARMUP, clock=time.process_time)
    times = [[seconds / len(videos) for seconds in each] for each in times]
    num_tokens = math.prod(model.embedding.grid_of(videos))
    full = model(videos).logits if num_random else None
    results = []
    for keep, motion, uniform in zip(keeps, times[1::2], times[2::2], strict=True):
        num_kept = num_kept_tokens(keep.share, (num_tokens,))
        compared = ({}, {}) if full is None else _compare(model, videos, keep, full, num_random)
        times_of_rule = {"full": times[0], "motion": motion, "uniform": uniform}
        results.append(BatchResult(num_kept / num_tokens, times_of_rule, *compared))
    return results


def _keep_by(rule: Rule, model: Model, videos: Tensor) -> object:
    return model(videos, keep=rule.keep(videos, model))


def _compare(
    model: Model, videos: Tensor, keep: Keep, full: Tensor, num_random: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Changes and flips of `BatchResult`, relative to the logits of all tokens."""
    num_tokens = math.prod(model.embedding.grid_of(videos))
    num_kept = num_kept_tokens(keep.share, (num_tokens,))
    choices_of: dict[str, Sequence[Keep | Tensor]] = {
        "motion": [keep],
        "uniform": [Keep(keep.share, "uniform")],
        "random": [random_tokens(num_tokens, num_kept, seed).expand(len(videos), -1) for seed in range(num_random)],
    }
    changes, flips = {}, {}
    for selection, choices in choices_of.items():
        logits = torch.stack([model(videos, keep=choice).logits for choice in choices])  # (choices, B, K)
        changes[selection] = relative_change(logits, full).mean(0).tolist()
        flips[selection] = (logits.argmax(-1) != full.argmax(-1)).double().mean(0).tolist()
    return changes, flips


def random_tokens(num_tokens: int, num_kept: int, seed: int) -> Tensor:
    """Indices (1, K) of different tokens."""
    return torch.randperm(num_tokens, generator=torch.Generator().manual_seed(seed))[None, :num_kept]


def relative_change(logits: Tensor, reference: Tensor) -> Tensor:
    """|logits - reference| / |reference| over the last axis, without the mean logit, which the softmax ignores."""
    logits, reference = (each.double() - each.double().mean(-1, keepdim=True) for each in (logits, reference))
    return (logits - reference).norm(dim=-1) / reference.norm(dim=-1)


def _joined(parts: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
