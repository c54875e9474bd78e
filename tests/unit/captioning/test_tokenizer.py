"""The captions' tokenizer: it encodes any text, is deterministic, and pads training targets."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lookupvivit.captioning.decoder import END, PAD, SPECIAL_TOKENS, START
from lookupvivit.captioning.tokenizer import MIN_VOCABULARY, CaptionTokenizer

CAPTIONS = [
    f"A {size} photo of a {hue} {what}."
    for size in ("small", "big")
    for hue in ("red", "blue", "greenish")
    for what in ("frog", "ship", "horse", "dog")
]
TOKENIZER = CaptionTokenizer.fit(CAPTIONS, 400)


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))))
@settings(max_examples=300, deadline=None)
def test_decoding_restores_any_text_in_normalised_form(text):
    """Text is normalised (case, white space, composed letters) when it is encoded, and unchanged after that."""
    normalised = TOKENIZER.decode(TOKENIZER.encode(text))
    assert TOKENIZER.decode(TOKENIZER.encode(normalised)) == normalised
    if text.isascii():
        assert normalised == " ".join(text.lower().split())


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))))
def test_captions_end_once_and_contain_no_other_special_token(text):
    tokens = TOKENIZER.encode(text)
    assert tokens[-1] == END and not {PAD, START, END} & set(tokens[:-1]) and max(tokens) < len(TOKENIZER)


def test_names_of_special_tokens_within_a_caption_are_ordinary_text():
    assert TOKENIZER.decode(TOKENIZER.encode("A <end> of <pad>  <Start>s")) == "a <end> of <pad> <start>s"
    unpickled = pickle.loads(pickle.dumps(TOKENIZER))
    assert unpickled.encode("<end> a") == TOKENIZER.encode("<end> a")


def test_frequent_words_become_single_tokens():
    assert len(TOKENIZER.encode("a small photo of a greenish frog.")) == 8 + 1  # and the end


def test_targets_are_padded_and_cut_ones_have_no_end():
    row = TOKENIZER.padded("a red dog", 6).tolist()
    assert row[3:] == [END, PAD, PAD] and TOKENIZER.decode(row) == "a red dog"
    cut = TOKENIZER.padded("a small photo of a red dog", 4).tolist()
    assert END not in cut and TOKENIZER.decode(cut) == "a small photo of"


def test_equal_captions_give_equal_tokenizers_in_any_process(tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("\n".join(CAPTIONS))
    code = f"""
from lookupvivit.captioning.tokenizer import CaptionTokenizer
print(CaptionTokenizer.fit(open({str(file)!r}).read().splitlines(), 400).to_json())
"""
    environment = {"TOKENIZERS_PARALLELISM": "true", "PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert process.stdout.strip() == TOKENIZER.to_json(), process.stderr


def test_hugging_faces_tokenizers_reads_the_json():
    theirs = Tokenizer.from_str(TOKENIZER.to_json())
    assert theirs.encode("a small ship").ids == TOKENIZER.encode("a small ship")[:-1]
    assert CaptionTokenizer.from_json(TOKENIZER.to_json()).to_json() == TOKENIZER.to_json()


def test_invalid_input_raises():
    with pytest.raises(ValueError, match=rf"^vocabulary: found 200, .*{MIN_VOCABULARY}"):
        CaptionTokenizer.fit(CAPTIONS, 200)
    with pytest.raises(ValueError, match=r"^tokenizer: "):
        CaptionTokenizer.from_json("{}")
    other = TOKENIZER.to_json().replace(SPECIAL_TOKENS[0], "<other>")
    with pytest.raises(ValueError, match=r"^tokenizer: found the first entries .*<other>"):
        CaptionTokenizer.from_json(other)
