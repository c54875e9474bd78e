"""Split captions into the words that caption metrics count, as coco-caption does, without Java.

Published scores are computed on the tokens of Stanford's PTBTokenizer (CoreNLP 3.4.1, options -preserveLines
-lowerCase), from which coco-caption removes a list of punctuation. `metric_words` returns the same tokens for what
captions consist of: words, contractions, hyphens, slashes, numbers, abbreviations, quotes and brackets. Web and mail
addresses, telephone numbers, markup and emoticons are not covered.

The decoder's token ids come from `tokenizer` instead.
"""

from __future__ import annotations

import re

# coco-caption's list also names brackets as -LRB-, but at that point tokens are in lower case, so that "-lrb-" remains,
# as do "!!", "?!" and signs such as "&". They must remain here as well, or scores would differ from published ones.
_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_ABBREVIATIONS = (
    "jan feb mar apr jun jul aug sept? oct nov dec mon tues? wed thu thurs fri "
    "ala ariz az ark calif colo conn ct dak del fla ga ill ind kans? ky la mass md mich minn miss mo mont neb nev okla "
    "ore pa penn tenn tex va vt wash wisc? wyo "
    "inc cos? corp pty ltd plc rt bhd assn univ intl sys bancorp dept natl mfg invt elec bros "
    "tel est ext sq ft jr sr esq ph etc al seq vs cf alex wm jos cie bldg blvd rd ave st mt "
    "mr mrs ms messrs drs? prof sen rep atty lt col gen gov adm rev maj sgt cpl pvt capt pres lieut hon brig cmdr supt "
    "det"
).replace(" ", "|")
_BEFORE_NUMBERS = "nos?|figs?|pp"  # abbreviations only before a number

_L = r"[^\W\d_]"  # a letter
_A = r"[^\W_]"  # a letter or digit
_TOKEN = re.compile(
    rf"""
      (?:{_ABBREVIATIONS})\.(?!{_L})                                   # St.
    | (?:{_BEFORE_NUMBERS})\.(?=\s*\d) | {_L}{_A}*\.(?=[,;:])                # No. 7   ft.,
    | (?:ph\.d|{_L}(?:\.{_L})*)\.(?:(?:-{_A}+)+|(?!{_A}))              # B.  p.m.  U.S.-made
    | (?-i:[A-Z]+(?:[&+][A-Z]+)+)                                      # AT&T, but a & t
    | [dlo]'(?!(?:s|d|m|ll|re|ve)(?!{_A})){_A}+(?:-{_A}+)*             # o'clock  d'oeuvres
    | ma'am | cap'n | nat'l | s'mores | ol' | y'(?={_L}) | [aeno]*e'er # words that keep their apostrophe
    | 'n' | '(?:em|til|cause|n|[2-9]0s)(?!{_A})                        # rock 'n' roll  'em  '50s
    | '(?:s|d|m|ll|re|ve)(?!{_A}) | 't(?=(?:is|was)(?!{_A})) | n't(?!{_A})
    | {_A}*?{_L}(?=n't(?!{_A}))                                        # does|n't
    | {_A}+(?:-{_L}+){{0,2}}(?:/{_A}+(?:-{_L}+){{0,2}}){{1,2}}(?!{_A}) # red/white  w/o
    | [-+]?\d*(?:[.,:]\d+)+(?:(?:-{_L}+)+)? | [-+]\d+                  # 1,000.50  5:30  -5  3.5-inch
    | {_A}+(?:(?:-(?:[dlo]')?|_+){_A}+)+                               # t-shirt
    | {_L}{_A}*(?:[.!?]{_L}{_A}*)+                                     # the end.Next sentence
    | {_A}+
    | [\#@]{_L}+ | </?{_L}+>                                           # #hashtag  @home  <unk>
    | \.{{3,}} | -{{2,}} | [!?]{{2,}} | '' | `` | _+ | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SPLIT = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    '"': "''",
}
_CHARACTERS = str.maketrans(
    {
        # curved quotes
        "\u2019": "'",
        "\u2018": "`",
        "\u201c": '"',
        "\u201d": '"',
        # dashes and ellipsis
        "\u2013": "--",
        "\u2014": "--",
        "\u2026": "...",
        # invisible: soft hyphen, zero-width space, byte order mark
        "\u00ad": "",
        "\u200b": " ",
        "\ufeff": "",
        # fractions and currencies
        "½": "1/2",
        "¼": "1/4",
        "¾": "3/4",
        "€": "$",
        "£": "#",
        "¢": " cents ",
    }
)


def metric_words(caption: str) -> list[str]:
    """The lower-case words of a caption without punctuation; empty if there are none.

    "The dogs' owner doesn't care." becomes: the dogs owner does n't care
    """
    tokens = (match.group().lower() for match in _TOKEN.finditer(caption.translate(_CHARACTERS)))
    words = (word for token in tokens for word in _SPLIT.get(token, token).split())
    return [word for word in words if word not in _PUNCTUATION and word.strip(".-")]
