"""Captions to the decoder's token ids and back: byte-level BPE (Sennrich et al., 2016), fitted on training captions.

The tokenizer is one of Hugging Face's `tokenizers` and is stored in its JSON format. It lower-cases text and collapses
white space. Bytes are the smallest entries, so that every text can be encoded.

The words that the metrics count come from `metric_words` instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import numpy as np

from lookupvivit.captioning.decoder import END, PAD, SPECIAL_TOKENS, START

# The library's threads do not survive the fork of loader workers. The variable must be set before the import.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

MIN_VOCABULARY = len(SPECIAL_TOKENS) + 256  # special tokens and bytes


class CaptionTokenizer:
    """A fitted tokenizer. The same captions in the same order give the same tokenizer.

    Args:
        tokenizer: its first entries must be `SPECIAL_TOKENS`.

    Raises:
        ValueError: its first entries are others.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        first = tuple(tokenizer.id_to_token(index) for index in range(len(SPECIAL_TOKENS)))
        if first != SPECIAL_TOKENS:
            raise ValueError(f"tokenizer: found the first entries {first}, expected {SPECIAL_TOKENS}")
        tokenizer.encode_special_tokens = True  # "<end>" within a caption is ordinary text
        self._tokenizer = tokenizer

    def __reduce__(self) -> tuple[Callable[[str], CaptionTokenizer], tuple[str]]:
        return CaptionTokenizer.from_json, (self.to_json(),)  # pickling a Tokenizer loses encode_special_tokens

    @classmethod
    def fit(cls, captions: Iterable[str], vocabulary: int) -> CaptionTokenizer:
        """Fit a tokenizer.

        Args:
            captions: texts to fit on.
            vocabulary: maximum number of entries. There are fewer if no further pair of entries occurs twice.

        Raises:
            ValueError: ``vocabulary`` is below `MIN_VOCABULARY`.
        """
        if vocabulary < MIN_VOCABULARY:
            parts = f"{len(SPECIAL_TOKENS)} special tokens and 256 bytes"
            raise ValueError(f"vocabulary: found {vocabulary}, expected at least {MIN_VOCABULARY}: {parts}")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=list(SPECIAL_TOKENS),
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        tokenizer.train_from_iterator(captions, trainer)
        return cls(tokenizer)

    @classmethod
    def from_json(cls, text: str) -> CaptionTokenizer:
        """Read the result of `to_json`, which is also the content of a run's tokenizer.json.

        Raises:
            ValueError: not such a tokenizer.
        """
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"tokenizer: expected JSON of Hugging Face's tokenizers ({error})") from None
        return cls(tokenizer)

    def to_json(self) -> str:
        """The tokenizer in the format of `tokenizers.Tokenizer.from_str`."""
        return self._tokenizer.to_str(pretty=True)

    def __len__(self) -> int:
        """The number of entries."""
        return self._tokenizer.get_vocab_size()

    def encode(self, caption: str) -> list[int]:
        """Token ids of a caption, `END` included."""
        return [*self._tokenizer.encode(caption, add_special_tokens=False).ids, END]

    def padded(self, caption: str, length: int) -> np.ndarray:
        """A training target, int64 (length,): token ids, then `PAD`. A longer caption is cut and has no `END`."""
        row = np.full(length, PAD, np.int64)
        tokens = self.encode(caption)[:length]
        row[: len(tokens)] = tokens
        return row

    def decode(self, tokens: Iterable[int]) -> str:
        """The caption before the first `END`, without special tokens."""
        ids = []
        for token in tokens:
            if token == END:
                break
            if token not in (PAD, START):
                ids.append(int(token))
        return self._tokenizer.decode(ids).strip()
