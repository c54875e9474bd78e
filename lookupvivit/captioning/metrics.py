"""Caption metrics: CIDEr-D (Vedantam et al., 2015) and BLEU (Papineni et al., 2002), as coco-caption computes them.

What coco-caption calls "CIDEr" is CIDEr-D. Scores have its scale: CIDEr-D lies in [0, 10], and papers print it times
100; BLEU lies in [0, 1].
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lookupvivit.captioning.metric_words import metric_words

Words = Sequence[str]
NGram = tuple[str, ...]

_MAX_ORDER = 4  # longest n-grams, in words
_LENGTH_SIGMA = 6.0  # of CIDEr-D's penalty on differing lengths


def caption_scores(captions: Mapping[Any, str], references: Mapping[Any, Sequence[str]]) -> dict[str, float]:
    """Score one caption per image against its reference captions.

    Args:
        captions: caption by image. An empty caption scores 0.
        references: one or more texts by image, for the same images. They must be those of the whole evaluated set,
            because CIDEr-D weights words by the number of images that have them.

    Returns:
        ``CIDEr`` and ``BLEU-1`` to ``BLEU-4``.

    Raises:
        ValueError: the images differ, an image has no reference, or there are fewer than two images.
    """
    _require_no_missing("captions", references.keys() - captions.keys())
    _require_no_missing("references", captions.keys() - references.keys())
    images = list(captions)
    for image in images:
        if isinstance(references[image], str) or not references[image]:
            raise ValueError(f"references[{image!r}]: found {references[image]!r}, expected a non-empty list of texts")
    candidates = [metric_words(captions[image]) for image in images]
    targets = [[metric_words(text) for text in references[image]] for image in images]
    bleu_scores = {f"BLEU-{n}": score for n, score in enumerate(bleu(candidates, targets), start=1)}
    return {"CIDEr": float(cider_d(candidates, targets).mean()), **bleu_scores}


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """CIDEr-D of every candidate, float64 (N,) in [0, 10]. The score of the set is their mean.

    N-grams of 1 to 4 words are weighted by the number of images that have them in any reference, so that all N images
    must be scored in one call.

    Args:
        candidates: one caption per image, as words.
        references: one or more captions per image.

    Raises:
        ValueError: the numbers of images differ, an image has no reference, or N < 2 (every weight would be 0).
    """
    _require_references(candidates, references)
    if len(candidates) < 2:
        raise ValueError(f"CIDEr: found {len(candidates)} image, expected at least 2: words are weighted by frequency")
    reference_ngrams = [[_ngrams(words) for words in texts] for texts in references]
    num_images_with = Counter(ngram for texts in reference_ngrams for ngram in set().union(*texts))
    log_images = math.log(len(candidates))

    def tf_idf(ngrams: Counter[NGram]) -> dict[NGram, float]:
        return {
            ngram: count * (log_images - math.log(max(1, num_images_with[ngram]))) for ngram, count in ngrams.items()
        }

    scores = np.zeros(len(candidates))
    for index, (words, texts) in enumerate(zip(candidates, reference_ngrams, strict=True)):
        weights = tf_idf(_ngrams(words))
        similarities = [_similarity(weights, len(words), tf_idf(ngrams), ngrams) for ngrams in texts]
        scores[index] = 10 * np.mean(similarities)
    return scores


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4 of a set of captions, each in [0, 1].

    Counts are summed over the set before they are divided. The brevity penalty uses, for each image, the reference
    length that is closest to the candidate's; of two equally close lengths, the shorter one. There is no smoothing:
    without a matching 4-gram, BLEU-4 is 0.

    Args:
        candidates, references: as for `cider_d`.

    Raises:
        ValueError: the numbers of images differ, there is no image, or an image has no reference.
    """
    _require_references(candidates, references)
    num_matches, num_ngrams = [0] * _MAX_ORDER, [0] * _MAX_ORDER
    length, reference_length = 0, 0
    for words, texts in zip(candidates, references, strict=True):
        length += len(words)
        _, closest = min((abs(len(text) - len(words)), len(text)) for text in texts)
        reference_length += closest
        max_counts: Counter[NGram] = Counter()
        for text in texts:
            max_counts |= _ngrams(text)
        for ngram, count in _ngrams(words).items():
            num_matches[len(ngram) - 1] += min(count, max_counts[ngram])
            num_ngrams[len(ngram) - 1] += count
    if not length:
        return (0.0,) * _MAX_ORDER
    brevity_penalty = min(1.0, math.exp(1 - reference_length / length))
    precisions = [matches / total if total else 0.0 for matches, total in zip(num_matches, num_ngrams, strict=True)]
    return tuple(brevity_penalty * math.prod(precisions[:n]) ** (1 / n) for n in range(1, _MAX_ORDER + 1))


def _require_no_missing(name: str, missing: Iterable[Hashable]) -> None:
    images = sorted(map(repr, missing))
    if images:
        raise ValueError(f"{name}: found none for {len(images)} images, such as {images[0]}; expected one per image")


def _require_references(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"found {len(candidates)} candidates and references for {len(references)} images")
    if not candidates:
        raise ValueError("found no captions to score, expected at least one")
    for index, texts in enumerate(references):
        if not texts:
            raise ValueError(f"references[{index}]: found none, expected at least one caption")


def _ngrams(words: Words) -> Counter[NGram]:
    """Counts of all n-grams of 1 to 4 words."""
    words = tuple(words)
    return Counter(words[i : i + n] for n in range(1, _MAX_ORDER + 1) for i in range(len(words) - n + 1))


def _similarity(
    weights: dict[NGram, float], num_words: int, other: dict[NGram, float], other_counts: Counter[NGram]
) -> float:
    """CIDEr-D's similarity of a candidate and a reference, without the factor 10.

    This is the clipped cosine of their TF-IDF vectors, averaged over the n-gram orders, times a length penalty.

    Args:
        weights, num_words: of the candidate.
        other, other_counts: of the reference.
    """
    products, squares, other_squares = np.zeros(_MAX_ORDER), np.zeros(_MAX_ORDER), np.zeros(_MAX_ORDER)
    for ngram, weight in weights.items():
        squares[len(ngram) - 1] += weight**2
        if ngram in other:
            products[len(ngram) - 1] += min(weight, other[ngram]) * other[ngram]
    num_bigrams = 0
    for ngram, weight in other.items():
        other_squares[len(ngram) - 1] += weight**2
        num_bigrams += other_counts[ngram] if len(ngram) == 2 else 0
    norms = np.sqrt(squares * other_squares)
    cosines = np.divide(products, norms, out=np.zeros(_MAX_ORDER), where=norms > 0)
    # coco-caption measures lengths in bigrams: a caption of no words is as long as one of one word.
    difference = max(num_words - 1, 0) - num_bigrams
    return float(cosines.mean() * math.exp(-(difference**2) / (2 * _LENGTH_SIGMA**2)))
