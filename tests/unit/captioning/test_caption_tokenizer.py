"""The tokenizer of captions: any text comes back, equal captions give equal ones, rows as a decoder learns them."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lookupvivit.captioning.model import END, PAD, SPECIAL
from lookupvivit.captioning.tokenizer import LEAST, CaptionTokenizer

CAPTIONS = [
    f"A {size} photo of a {hue} {what}."
    for size in ("small", "big")
    for hue in ("red", "blue", "greenish")
    for what in ("frog", "ship", "horse", "dog")
]
FITTED = CaptionTokenizer.fit(CAPTIONS, 400)


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))))
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_in_small_letters(text):
    """Bytes are entries: nothing is unknown. Upper case, runs of spaces and composed letters are written one way."""
    once = FITTED.decode(FITTED.encode(text))
    assert FITTED.decode(FITTED.encode(once)) == once
    tokens = FITTED.encode(text)
    assert tokens[-1] == END and not set(tokens[:-1]) & {0, 1, 2} and max(tokens) < len(FITTED)
    if text.isascii():
        assert once == " ".join(text.lower().split(" ")).strip() if "  " not in text else True


def test_marks_in_a_caption_are_text_and_words_become_single_tokens():
    assert FITTED.decode(FITTED.encode("A <end> of <pad>  <Start>s")) == "a <end> of <pad> <start>s"
    assert len(FITTED.encode("a small photo of a greenish frog.")) == 9  # eight and the end
    assert pickle.loads(pickle.dumps(FITTED)).encode("<end> a") == FITTED.encode("<end> a")


def test_rows_are_padded_and_cut_ones_have_no_end():
    row = FITTED.padded("a red dog", 6).tolist()
    assert row[3:] == [END, PAD, PAD] and FITTED.decode(row) == "a red dog"
    cut = FITTED.padded("a small photo of a red dog", 4).tolist()
    assert END not in cut and FITTED.decode(cut) == "a small photo of"


def test_equal_captions_give_equal_tokenizers_in_any_process(tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("\n".join(CAPTIONS))
    code = f"""
from lookupvivit.captioning.tokenizer import CaptionTokenizer
print(CaptionTokenizer.fit(open({str(file)!r}).read().splitlines(), 400).to_json())
"""
    for threads in ("false", "true"):
        environment = {"TOKENIZERS_PARALLELISM": threads, "PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert told.stdout.strip() == FITTED.to_json(), told.stderr
    # Any program with the library reads it.
    theirs = Tokenizer.from_str(FITTED.to_json())
    assert theirs.encode("a small ship").ids == FITTED.encode("a small ship")[:-1]
    assert CaptionTokenizer.from_json(FITTED.to_json()).to_json() == FITTED.to_json()


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=f"found 200, must be at least {LEAST}"):
        CaptionTokenizer.fit(CAPTIONS, 200)
    with pytest.raises(ValueError, match="not one of Hugging Face's tokenizers"):
        CaptionTokenizer.from_json("{}")
    other = FITTED.to_json().replace(SPECIAL[0], "<other>")
    with pytest.raises(ValueError, match=r"its first entries are .*'<other>'"):
        CaptionTokenizer.from_json(other)
