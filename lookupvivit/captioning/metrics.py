"""Scores of captions against reference captions: CIDEr-D (Vedantam et al., 2015) and BLEU (Papineni et al., 2002).

Both as coco-caption computes them, whose "CIDEr" is CIDEr-D. Scores are on its scale: CIDEr-D in [0, 10], which papers
print times 100, and BLEU in [0, 1].
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from lookupvivit.captioning.metric_tokens import caption_tokens

Tokens = Sequence[str]
_ORDERS = 4
_LENGTH_SIGMA = 6.0  # of CIDEr-D's penalty


def caption_scores(captions: Mapping[Hashable, str], references: Mapping[Hashable, Sequence[str]]) -> dict[str, float]:
    """``CIDEr`` and ``BLEU-1`` to ``BLEU-4`` of one caption per image against its reference captions.

    Args:
        captions: text by image, for exactly the images of ``references``; an empty caption scores 0.
        references: one or more texts by image, all of the evaluated set: they also say how rare a word is.

    Raises:
        ValueError: the images differ, one has no reference, or there are fewer than two.
    """
    for owner, other, missing in (
        ("captions", "references", references.keys() - captions.keys()),
        ("references", "captions", captions.keys() - references.keys()),
    ):
        if missing:
            some = sorted(map(repr, missing))[0]
            raise ValueError(f"{owner}: found nothing for {len(missing)} images of the {other}, such as {some}")
    images = list(captions)
    for image in images:
        if isinstance(references[image], str) or not references[image]:
            raise ValueError(f"references[{image!r}]: found {references[image]!r}, must be a list of texts")
    candidates = [caption_tokens(captions[image]) for image in images]
    targets = [[caption_tokens(text) for text in references[image]] for image in images]
    orders = {f"BLEU-{n}": score for n, score in enumerate(bleu(candidates, targets), start=1)}
    return {"CIDEr": float(cider_d(candidates, targets).mean()), **orders}


def cider_d(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """CIDEr-D of every candidate, float64 (N,) in [0, 10]; the score of the set is their mean.

    N-grams of 1 to 4 words are weighted by how many of the N images have them in any reference, so all images must be
    scored together.

    Raises:
        ValueError: the lengths differ, an image has no reference, or N < 2 (every weight would be 0).
    """
    _check(candidates, references)
    if len(candidates) < 2:
        raise ValueError(f"CIDEr weighs words by how few images have them: found {len(candidates)}, must be 2 or more")
    counted = [[_ngrams(tokens) for tokens in texts] for texts in references]
    images_with = Counter(ngram for texts in counted for ngram in set().union(*texts))
    log_images = math.log(len(candidates))

    def weigh(ngrams: Counter[Tokens]) -> dict[Tokens, float]:
        return {ngram: count * (log_images - math.log(max(1, images_with[ngram]))) for ngram, count in ngrams.items()}

    scores = np.zeros(len(candidates))
    for at, (tokens, texts) in enumerate(zip(candidates, counted, strict=True)):
        own = weigh(_ngrams(tokens))
        similarities = [_similarity(own, len(tokens), weigh(ngrams), ngrams) for ngrams in texts]
        scores[at] = 10 * np.mean(similarities)
    return scores


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4 of the whole set, in [0, 1].

    Counts are summed over the set before they are divided. The brevity penalty takes of each image the reference length
    closest to the candidate's, of two equally close the shorter. Nothing is smoothed: without a common 4-gram BLEU-4
    is 0.

    Raises:
        ValueError: the lengths differ, there is no image, or one has no reference.
    """
    _check(candidates, references)
    matched, guessed, length, reference_length = [0] * _ORDERS, [0] * _ORDERS, 0, 0
    for tokens, texts in zip(candidates, references, strict=True):
        length += len(tokens)
        reference_length += min((abs(len(text) - len(tokens)), len(text)) for text in texts)[1]
        most: Counter[Tokens] = Counter()
        for text in texts:
            most |= _ngrams(text)
        for ngram, count in _ngrams(tokens).items():
            matched[len(ngram) - 1] += min(count, most[ngram])
            guessed[len(ngram) - 1] += count
    if not length:
        return (0.0,) * _ORDERS
    brevity = min(1.0, math.exp(1 - reference_length / length))
    precisions = [right / total if total else 0.0 for right, total in zip(matched, guessed, strict=True)]
    return tuple(brevity * math.prod(precisions[:n]) ** (1 / n) for n in range(1, _ORDERS + 1))


def _check(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates but references of {len(references)} images")
    if not candidates:
        raise ValueError("there are no captions to score")
    for at, texts in enumerate(references):
        if not texts:
            raise ValueError(f"image {at} has no reference")


def _ngrams(tokens: Tokens) -> Counter[Tokens]:
    """How often each run of 1 to 4 tokens occurs."""
    words = tuple(tokens)
    return Counter(words[i : i + n] for n in range(1, _ORDERS + 1) for i in range(len(words) - n + 1))


def _similarity(own: dict[Tokens, float], words: int, other: dict[Tokens, float], counts: Counter[Tokens]) -> float:
    """Clipped cosine of the two weightings, mean over the n-gram orders, times the penalty of differing lengths."""
    products, squares, other_squares = np.zeros(_ORDERS), np.zeros(_ORDERS), np.zeros(_ORDERS)
    for ngram, weight in own.items():
        squares[len(ngram) - 1] += weight**2
        if ngram in other:
            products[len(ngram) - 1] += min(weight, other[ngram]) * other[ngram]
    bigrams = 0
    for ngram, weight in other.items():
        other_squares[len(ngram) - 1] += weight**2
        bigrams += counts[ngram] if len(ngram) == 2 else 0
    norms = np.sqrt(squares * other_squares)
    cosines = np.divide(products, norms, out=np.zeros(_ORDERS), where=norms > 0)
    # Lengths are compared in bigrams, as coco-caption does: a caption of no word is as long as one of one word.
    difference = max(words - 1, 0) - bigrams
    return float(cosines.mean() * math.exp(-(difference**2) / (2 * _LENGTH_SIGMA**2)))
