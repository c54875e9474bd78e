"""From captions to tokens and back: byte-level BPE (Sennrich et al., 2016), fitted on the training captions.

Of Hugging Face's `tokenizers`, whose JSON it is saved as. Letters are made small and spaces single; every text can be
written, as bytes are the smallest entries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import numpy as np

from lookupvivit.captioning.model import END, PAD, SPECIAL, START

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the forks of a loader
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LEAST = len(SPECIAL) + 256  # entries of any tokenizer


class CaptionTokenizer:
    """Tokens of captions; equal captions in equal order give equal tokenizers.

    Args:
        tokenizer: with the entries `SPECIAL` first.

    Raises:
        ValueError: another tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        found = tuple(tokenizer.id_to_token(i) for i in range(len(SPECIAL)))
        if found != SPECIAL:
            raise ValueError(f"tokenizer: its first entries are {found}, must be {SPECIAL}")
        tokenizer.encode_special_tokens = True  # "<end>" in a text is text
        self._tokenizer = tokenizer

    def __reduce__(self) -> tuple[Callable[[str], CaptionTokenizer], tuple[str]]:
        return CaptionTokenizer.from_json, (self.to_json(),)  # what is set above does not travel with a pickle

    @classmethod
    def fit(cls, captions: Iterable[str], vocabulary: int) -> CaptionTokenizer:
        """At most ``vocabulary`` entries, fewer where the captions hold no more pairs that occur twice.

        Raises:
            ValueError: fewer than `LEAST` are asked for.
        """
        if vocabulary < LEAST:
            raise ValueError(
                f"vocabulary: found {vocabulary}, must be at least {LEAST}: {', '.join(SPECIAL)} and the bytes"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=list(SPECIAL),
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        tokenizer.train_from_iterator(captions, trainer)
        return cls(tokenizer)

    @classmethod
    def from_json(cls, text: str) -> CaptionTokenizer:
        """Read what `to_json` gives, or the tokenizer.json of a run.

        Raises:
            ValueError: it is none.
        """
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(f"tokenizer: not one of Hugging Face's tokenizers ({error})") from None
        return cls(tokenizer)

    def to_json(self) -> str:
        """The tokenizer as `tokenizers.Tokenizer.from_str` reads it."""
        return self._tokenizer.to_str(pretty=True)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, caption: str) -> list[int]:
        """Tokens of a caption, its end included."""
        return [*self._tokenizer.encode(caption, add_special_tokens=False).ids, END]

    def padded(self, caption: str, length: int) -> np.ndarray:
        """Tokens as a decoder is trained on them, int64 (length,): a longer caption is cut, and then has no end."""
        row = np.full(length, PAD, np.int64)
        tokens = self.encode(caption)[:length]
        row[: len(tokens)] = tokens
        return row

    def decode(self, tokens: Iterable[int]) -> str:
        """The caption up to its end, without `SPECIAL`."""
        words = []
        for token in tokens:
            if token == END:
                break
            if token not in (PAD, START):
                words.append(int(token))
        return self._tokenizer.decode(words).strip()
