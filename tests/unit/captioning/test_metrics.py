"""CIDEr-D and BLEU against published scores, hand computation and a dense implementation."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import SHARED_DATA

from lookupvivit.captioning.metric_words import metric_words
from lookupvivit.captioning.metrics import bleu, caption_scores, cider_d

PUBLISHED = SHARED_DATA / "caption_reference" / "fakecap_1000.json"


@pytest.mark.parametrize(
    ("caption", "words"),
    [  # the output of CoreNLP 3.4.1 in coco-caption
        ("A man,  riding a wave.", "a man riding a wave"),
        ("The dogs' owner doesn't care: IT'S a girl's.", "the dogs owner does n't care it 's a girl 's"),
        ("They can't, won't, shouldn't've; I cannot", "they ca n't wo n't should n't 've i can not"),
        ("'Tis rock 'n' roll at 5 o'clock, y'all, in the '50s", "'t is rock 'n' roll at 5 o'clock y' all in the '50s"),
        ("A close-up of two t-shirts -- red/white -", "a close-up of two t-shirts red/white"),
        ('A "stop" sign on 11th St. in L.A. (left)', "a stop sign on 11th st. in l.a. -lrb- left -rrb-"),
        ("Signs on Main Rd., No. 7, no way. No.", "signs on main rd. no. 7 no way no"),
        ("5:30pm, 1,000 $2.50 #25 50% 8.5x11 12-inch 1/2", "5:30 pm 1,000 $ 2.50 # 25 50 % 8.5 x11 12-inch 1/2"),
        ("R&B or r&b & more... Wow!! A cat.A dog", "r&b or r & b & more wow !! a cat.a dog"),
        ("\u201cCafé\u2019s\u201d jalapeño \u2013 don\u2019t", "café 's jalapeño do n't"),
        ("gonna\twanna [UNK] w/ 45°", "gon na wan na -lsb- unk -rsb- w / 45 °"),
        (" . ' \" -- ", ""),
        ("", ""),
    ],
)
def test_words_equal_those_of_the_penn_treebank_tokenizer(caption, words):
    assert metric_words(caption) == words.split()


def test_scores_of_the_coco_caption_example_equal_the_published_ones():
    if not PUBLISHED.is_file():
        pytest.skip("the captions of coco-caption's example are not in ../shared/data")
    example = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    items, published = example["items"], example["published"]
    expected = [published[name] for name in ("CIDEr", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")]
    texts = {item["image_id"]: item["caption"] for item in items}
    scores = caption_scores(texts, {item["image_id"]: item["refs"] for item in items})
    assert [round(score, 3) for score in scores.values()] == expected
    candidates = [item["caption_tok"].split() for item in items]
    references = [[text.split() for text in item["refs_tok"]] for item in items]
    assert cider_d(candidates, references).mean() == pytest.approx(0.5998926709924598, abs=1e-12)
    assert [round(score, 3) for score in bleu(candidates, references)] == expected[1:]
    pairs = [pair for item in items for pair in zip(item["refs"], item["refs_tok"], strict=True)]
    pairs += [(item["caption"], item["caption_tok"]) for item in items]
    # The example's tokens do not come from CoreNLP, which keeps "etc.", "rd." and "5:55" and splits "#25": 11 of 6,005
    # texts differ.
    assert sum(metric_words(text) != words.split() for text, words in pairs) <= 11


def test_bleu_equals_hand_computation():
    # "the" is clipped to its 2 occurrences in the first reference. The references of 4 and 2 words are equally close.
    candidates = [["the", "the", "cat"]]
    references = [[["the", "cat", "the", "mat"], ["a", "cat"]]]
    assert bleu(candidates, references) == pytest.approx((1.0, math.sqrt(1.0 * 1 / 2), 0.0, 0.0))
    # Two images: 5 of 6 words, 2 of 4 bigrams, 1 of 2 trigrams match; 6 words against 8.
    candidates = [["a", "b", "c", "d"], ["x", "y"]]
    references = [[["a", "b", "c", "e", "d"]], [["x", "z", "w"]]]
    brevity = math.exp(1 - 8 / 6)
    expected = (5 / 6, math.sqrt(5 / 6 * 2 / 4), (5 / 6 * 2 / 4 * 1 / 2) ** (1 / 3), 0.0)
    assert bleu(candidates, references) == pytest.approx([brevity * score for score in expected])
    assert bleu([[], []], references) == (0.0, 0.0, 0.0, 0.0)


def test_cider_equals_hand_computation():
    references = [[["cat", "sat"]], [["dog", "sat"]], [["dog", "ran"]]]
    # A word of one image has weight log 3, of two images log 3/2. There are no trigrams, so 2 of 4 orders count.
    rare, common = math.log(3), math.log(1.5)
    unigrams = common**2 / (math.hypot(rare, common) * math.hypot(common, common))
    scores = cider_d([["cat", "sat"], ["cat", "sat"], ["bird"]], references)
    assert scores == pytest.approx([10 * 2 / 4, 10 * unigrams / 4, 0.0])
    # A repeated word: its weight is clipped, and the lengths 2 and 1 (in bigrams) differ by one.
    doubled = (rare * rare + common * common) / (math.hypot(2 * rare, common) * math.hypot(rare, common))
    bigrams = rare / math.hypot(rare, rare)
    longer = cider_d([["cat", "cat", "sat"], [], []], references)[0]
    assert longer == pytest.approx(10 / 4 * (doubled + bigrams) * math.exp(-1 / (2 * 6**2)))


@st.composite
def captioned_images(draw):
    words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)
    images = draw(st.integers(2, 5))
    sets = st.lists(words, min_size=1, max_size=3)
    return [draw(words) for _ in range(images)], [draw(sets) for _ in range(images)]


def ngrams_of(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def dense_cider_d(candidates, references):
    """CIDEr-D from dense TF-IDF vectors, one n-gram order at a time."""
    num_images = len(candidates)
    scores = np.zeros(num_images)
    all_texts = [*candidates, *(text for texts in references for text in texts)]
    for n in range(1, 5):
        vocabulary = sorted({ngram for text in all_texts for ngram in ngrams_of(text, n)})
        columns = {ngram: column for column, ngram in enumerate(vocabulary)}
        frequency = np.zeros(len(columns))
        for texts in references:
            for ngram in {ngram for text in texts for ngram in ngrams_of(text, n)}:
                frequency[columns[ngram]] += 1
        idf = np.log(num_images / np.maximum(frequency, 1))
        tf_idf = {
            text: np.bincount([columns[ngram] for ngram in ngrams_of(text, n)], minlength=len(columns)) * idf
            for text in map(tuple, all_texts)
        }
        for image, (candidate, texts) in enumerate(zip(candidates, references, strict=True)):
            for text in texts:
                own, other = tf_idf[tuple(candidate)], tf_idf[tuple(text)]
                norm = np.linalg.norm(own) * np.linalg.norm(other)
                cosine = np.minimum(own, other) @ other / norm if norm else 0.0
                penalty = math.exp(-((len(candidate) - len(text)) ** 2) / (2 * 6**2))
                scores[image] += 10 / 4 * cosine * penalty / len(texts)
    return scores


@given(captioned_images())
def test_cider_equals_a_dense_implementation(case):
    candidates, references = case
    np.testing.assert_allclose(cider_d(candidates, references), dense_cider_d(candidates, references), atol=1e-9)


@given(captioned_images(), st.randoms(use_true_random=False))
def test_scores_depend_neither_on_order_nor_on_image_names(case, random):
    candidates, references = case
    texts = {i: " ".join(words) for i, words in enumerate(candidates)}
    targets = {i: [" ".join(words) for words in several] for i, several in enumerate(references)}
    expected = caption_scores(texts, targets)
    images = random.sample(list(texts), len(texts))
    upper = {f"image {i}": f" {texts[i].upper()} !" for i in images}
    shuffled = {f"image {i}": random.sample(targets[i], len(targets[i])) for i in reversed(images)}
    assert caption_scores(upper, shuffled) == pytest.approx(expected)
    assert 0 <= expected["CIDEr"] <= 10
    assert all(0 <= expected[f"BLEU-{n}"] <= 1 for n in range(1, 5))
    best = caption_scores({i: several[0] for i, several in targets.items()}, targets)
    assert best["BLEU-1"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({1: "a"}, {1: ["a"], 2: ["b"]}, "^captions: .* such as 2"),
        ({1: "a", 2: "b"}, {1: ["a"]}, "^references: .* such as 2"),
        ({1: "a", 2: "b"}, {1: ["a"], 2: []}, r"^references\[2\]: found \[\]"),
        ({1: "a", 2: "b"}, {1: ["a"], 2: "b"}, r"^references\[2\]: found 'b'"),
        ({1: "a"}, {1: ["a"]}, "CIDEr: found 1 image"),
        ({}, {}, "no captions"),
    ],
)
def test_invalid_input_raises(captions, references, message):
    with pytest.raises(ValueError, match=message):
        caption_scores(captions, references)
