import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import SHARED_DATA

from lookupvivit.captioning.metric_tokens import caption_tokens
from lookupvivit.captioning.metrics import bleu, caption_scores, cider_d

PUBLISHED = SHARED_DATA / "caption_reference" / "fakecap_1000.json"


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [  # each as CoreNLP 3.4.1 under coco-caption gives it
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
def test_tokens_are_those_of_the_penn_treebank_tokenizer(caption, tokens):
    assert caption_tokens(caption) == tokens.split()


def test_scores_of_coco_captions_own_example_are_the_published_ones():
    if not PUBLISHED.is_file():
        pytest.skip("the 1,000 captions of coco-caption's example are not beside the checkout (../shared/data)")
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
    # Those are not from CoreNLP itself, which keeps "etc.", "rd." and "5:55" and parts "# 25": 11 of 6,005 texts.
    assert sum(caption_tokens(text) != tokens.split() for text, tokens in pairs) <= 11


def test_bleu_by_hand():
    # "the the cat": 'the' is clipped to 2 by one reference; of 4 and 2 words the shorter is as close as the longer.
    candidates = [["the", "the", "cat"]]
    references = [[["the", "cat", "the", "mat"], ["a", "cat"]]]
    assert bleu(candidates, references) == pytest.approx((1.0, math.sqrt(1.0 * 1 / 2), 0.0, 0.0))
    # Two images: 5 of 6 words, 2 of 4 pairs, 1 of 2 triples; 6 words against 8.
    candidates = [["a", "b", "c", "d"], ["x", "y"]]
    references = [[["a", "b", "c", "e", "d"]], [["x", "z", "w"]]]
    brevity = math.exp(1 - 8 / 6)
    expected = (5 / 6, math.sqrt(5 / 6 * 2 / 4), (5 / 6 * 2 / 4 * 1 / 2) ** (1 / 3), 0.0)
    assert bleu(candidates, references) == pytest.approx([brevity * score for score in expected])
    assert bleu([[], []], references) == (0.0, 0.0, 0.0, 0.0)


def test_cider_by_hand():
    references = [[["cat", "sat"]], [["dog", "sat"]], [["dog", "ran"]]]
    # Words of one image weigh log 3, of two log 3/2; no 3-gram exists, so at most 2 of the 4 orders count.
    rare, common = math.log(3), math.log(1.5)
    unigrams = common**2 / (math.hypot(rare, common) * math.hypot(common, common))
    scores = cider_d([["cat", "sat"], ["cat", "sat"], ["bird"]], references)
    assert scores == pytest.approx([10 * 2 / 4, 10 * unigrams / 4, 0.0])
    # One word too many: the cosine of the doubled word is clipped, lengths 2 and 1 (in pairs) differ by one.
    doubled = (rare * rare + common * common) / (math.hypot(2 * rare, common) * math.hypot(rare, common))
    pairs = rare / math.hypot(rare, rare)
    longer = cider_d([["cat", "cat", "sat"], [], []], references)[0]
    assert longer == pytest.approx(10 / 4 * (doubled + pairs) * math.exp(-1 / (2 * 6**2)))


@st.composite
def captioned(draw):
    words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)
    images = draw(st.integers(2, 5))
    sets = st.lists(words, min_size=1, max_size=3)
    return [draw(words) for _ in range(images)], [draw(sets) for _ in range(images)]


@given(captioned())
def test_cider_is_that_of_dense_vectors(case):
    candidates, references = case
    images, total = len(candidates), np.zeros(len(candidates))
    for n in range(1, 5):

        def grams(text, n=n):
            return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]

        everything = [*candidates, *(text for texts in references for text in texts)]
        axis = {gram: place for place, gram in enumerate(sorted({gram for text in everything for gram in grams(text)}))}
        frequency = np.zeros(len(axis))
        for texts in references:
            frequency[[axis[gram] for gram in {gram for text in texts for gram in grams(text)}]] += 1
        idf = np.log(images / np.maximum(frequency, 1))

        def vector(text, idf=idf, axis=axis, grams=grams):
            return np.bincount([axis[gram] for gram in grams(text)], minlength=len(axis)) * idf

        for at, (candidate, texts) in enumerate(zip(candidates, references, strict=True)):
            for text in texts:
                own, other = vector(candidate), vector(text)
                norm = np.linalg.norm(own) * np.linalg.norm(other)
                cosine = np.minimum(own, other) @ other / norm if norm else 0.0
                penalty = math.exp(-((len(candidate) - len(text)) ** 2) / 72)
                total[at] += 10 / 4 * cosine * penalty / len(texts)
    np.testing.assert_allclose(cider_d(candidates, references), total, atol=1e-9)


@given(captioned(), st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(case, random):
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
        ({1: "a"}, {1: ["a"], 2: ["b"]}, "captions: found nothing for 1 images of the references, such as 2"),
        ({1: "a", 2: "b"}, {1: ["a"]}, "references: found nothing for 1 images of the captions, such as 2"),
        ({1: "a", 2: "b"}, {1: ["a"], 2: []}, r"references\[2\]: found \[\], must be a list of texts"),
        ({1: "a", 2: "b"}, {1: ["a"], 2: "b"}, r"references\[2\]: found 'b', must be a list of texts"),
        ({1: "a"}, {1: ["a"]}, "found 1, must be 2 or more"),
        ({}, {}, "no captions"),
    ],
)
def test_nonsense_is_refused(captions, references, message):
    with pytest.raises(ValueError, match=message):
        caption_scores(captions, references)
