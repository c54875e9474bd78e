"""Captions as the words that caption scores count, with no Java.

The scores of the literature are taken over the tokens of Stanford's PTBTokenizer (CoreNLP 3.4.1, options -preserveLines
-lowerCase), of which coco-caption drops a list of punctuation. `caption_tokens` gives the same tokens for what
captions are made of: words, contractions, hyphens, slashes, numbers, abbreviations, quotes, brackets. Outside lie web
and mail addresses, telephone numbers, markup and smileys.
"""

from __future__ import annotations

import re

# coco-caption's list also names brackets, as -LRB-; as the tokens are in lower case by then, "-lrb-" stays. So do "!!",
# "?!" and signs such as "&". The rare token must count here too, or scores would not be those of the literature.
_DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_ABBREVIATIONS = (
    "jan feb mar apr jun jul aug sept? oct nov dec mon tues? wed thu thurs fri "
    "ala ariz az ark calif colo conn ct dak del fla ga ill ind kans? ky la mass md mich minn miss mo mont neb nev okla "
    "ore pa penn tenn tex va vt wash wisc? wyo "
    "inc cos? corp pty ltd plc rt bhd assn univ intl sys bancorp dept natl mfg invt elec bros "
    "tel est ext sq ft jr sr esq ph etc al seq vs cf alex wm jos cie bldg blvd rd ave st mt "
    "mr mrs ms messrs drs? prof sen rep atty lt col gen gov adm rev maj sgt cpl pvt capt pres lieut hon brig cmdr supt "
    "det"
).replace(" ", "|")
_NUMBERED = "nos?|figs?|pp"  # abbreviations only where a number follows

_L, _A = r"[^\W\d_]", r"[^\W_]"  # a letter; a letter or digit
_TOKEN = re.compile(
    rf"""
      (?:{_ABBREVIATIONS})\.(?!{_L})                                   # St.
    | (?:{_NUMBERED})\.(?=\s*\d) | {_L}{_A}*\.(?=[,;:])                # No. 7   ft.,
    | (?:ph\.d|{_L}(?:\.{_L})*)\.(?:(?:-{_A}+)+|(?!{_A}))              # B.  p.m.  U.S.-made
    | (?-i:[A-Z]+(?:[&+][A-Z]+)+)                                      # AT&T, but a & t
    | [dlo]'(?!(?:s|d|m|ll|re|ve)(?!{_A})){_A}+(?:-{_A}+)*             # o'clock  d'oeuvres
    | ma'am | cap'n | nat'l | s'mores | ol' | y'(?={_L}) | [aeno]*e'er # ...and what else keeps its apostrophe
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
_SIGNS = str.maketrans(
    {
        "\u2019": "'",
        "\u2018": "`",
        "\u201c": '"',
        "\u201d": '"',  # curved quotes
        "\u2013": "--",
        "\u2014": "--",
        "\u2026": "...",
        "\u00ad": "",
        "\u200b": " ",
        "\ufeff": "",  # dashes, unseen signs
        "½": "1/2",
        "¼": "1/4",
        "¾": "3/4",
        "€": "$",
        "£": "#",
        "¢": " cents ",
    }
)


def caption_tokens(caption: str) -> list[str]:
    """The lower-case tokens of one caption without punctuation; empty where it holds no word.

    "The dogs' owner doesn't care." gives the dogs owner does n't care.
    """
    tokens = (match.group().lower() for match in _TOKEN.finditer(caption.translate(_SIGNS)))
    parts = (part for token in tokens for part in _SPLIT.get(token, token).split())
    return [part for part in parts if part not in _DROPPED and part.strip(".-")]
